"""Writing masks tile by tile so that a job may be stopped, killed or run out of disk at any moment and go on later."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from napari_kdseg.errors import OutputError
from napari_kdseg.masks.disk import WriteLock, writing
from napari_kdseg.masks.metadata import journal_path, level_paths, read_attributes, write_attributes
from napari_kdseg.masks.reduction import reduce_classes, reduce_probabilities
from napari_kdseg.masks.tiling import GridIndex, GridTile, to_level_0
from napari_kdseg.masks.writing.journal import Journal, Note
from napari_kdseg.masks.writing.packing import count_shards, is_packed
from napari_kdseg.masks.writing.packing import pack as pack_mask
from napari_kdseg.masks.writing.pyramid_writer import PyramidWriter
from napari_kdseg.masks.writing.slabs import Slab

SECONDS_BETWEEN_COMMITS = 1.0
TILES_BETWEEN_COMMITS = 256


class MaskWriter:
    """Masks that share one grid of tiles and one journal, open for one job.

    Use it in a ``with`` block: on leaving, however that happens, what was written is made durable where the
    disk allows.

    Parameters
    ----------
    folders
        Of the masks, ``labels/<name>`` or ``probabilities/<name>``; the journal lies in the first.
    shape
        ``(height, width)`` of the finest level.
    tile
        Side of a tile.
    downsample
        ``(y, x)`` of the finest level.
    locks
        Held until the end of the ``with`` block.
    slab
        The only tiles that will be written, up to its own level of the pyramid, while others write other slabs. The
        next writer of the whole mask takes them over.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        *,
        shape: tuple[int, int],
        tile: int,
        downsample: tuple[float, float],
        locks: Sequence[WriteLock] = (),
        slab: Slab | None = None,
    ):
        self._folders = list(folders)
        self._downsample = downsample
        self._slab = slab
        self._what = f"The mask {folders[0].name!r}"
        self._tiles = math.prod(math.ceil(side / tile) for side in shape)
        self._locks = locks
        self._lock = threading.RLock()
        self._failed = False
        self._committed_at = time.monotonic()
        attributes = [read_attributes(folder) for folder in folders]
        self._levels = len(level_paths(attributes[0]))
        self._packed = any(is_packed(about) for about in attributes)
        self._journal = Journal(journal_path(folders[0]), slab)
        self._pyramids: list[PyramidWriter] = []
        if not self._packed:
            try:
                self._pyramids = [
                    _open_pyramid(folder, about, tile, slab)
                    for folder, about in zip(folders, attributes, strict=True)
                ]
                with writing(self._what):
                    self._catch_up()
                if slab is None:
                    self._update(status="unfinished")
            except BaseException:
                self._journal.close()
                raise

    @property
    def done(self) -> dict[tuple[int, int], Note]:
        """``(row, column)`` of the tiles that are safely on disk, and what was noted about each."""
        return self._journal.done

    @property
    def levels(self) -> int:
        """How many levels the masks have."""
        return self._levels

    @property
    def unreadable(self) -> int:
        """How many tiles of the slide could not be decoded, in this run and those before it."""
        return len(self._journal.record.unreadable)

    def write_tile(
        self, tile: GridTile, blocks: Sequence[np.ndarray], note: Note | None = None
    ) -> tuple[int, int, int, int]:
        """Write one tile of every mask; it is durable, and written down as done, when this returns.

        Any number of threads may write different tiles at the same time. The coarser levels follow at every commit.

        Parameters
        ----------
        tile
            Where.
        blocks
            One uint8 ``[tile.height, tile.width]`` for each mask.
        note
            Kept with the tile, as JSON.

        Returns
        -------
        tuple of int
            The rectangle that changed, ``(y, x, height, width)`` in level-0 pixels.

        Raises
        ------
        OutputError
            If the disk is full or the folder cannot be written any more, or if the mask is packed: then all of its
            tiles are in :attr:`done`.
        """
        if self._packed:
            raise OutputError(f"{self._what} is finished and packed; it takes no more tiles.")
        with self._trying():
            for pyramid, block in zip(self._pyramids, blocks, strict=True):
                pyramid.write(tile.row, tile.column, block)
            with self._lock:
                for pyramid, block in zip(self._pyramids, blocks, strict=True):
                    pyramid.carry(tile.row, tile.column, block)
                self._journal.append({tile.index: note or {}})
                waited = time.monotonic() - self._committed_at
                if (
                    waited > SECONDS_BETWEEN_COMMITS
                    or len(self._journal.record.uncarried) >= TILES_BETWEEN_COMMITS
                ):
                    self.commit()
        return to_level_0((tile.y, tile.x, tile.height, tile.width), self._downsample)

    def note_unreadable(self, level: int, row: int, column: int) -> None:
        """Write down that a tile of the slide could not be decoded, so that its grey was predicted.

        Raises
        ------
        OutputError
            As :meth:`write_tile`.
        """
        with self._trying(), self._lock:
            self._journal.append_unreadable(level, row, column)

    def commit(self) -> None:
        """Bring the coarser levels up to date and make them durable.

        Raises
        ------
        OutputError
            As :meth:`write_tile`. A writer that failed once writes nothing more: a system that could not keep its
            promise may have dropped the data, and say the next time that all is well.
        """
        if self._packed:
            return
        with self._trying(), self._lock:
            for pyramid in self._pyramids:
                pyramid.commit()
            self._journal.append_pyramid()
            self._committed_at = time.monotonic()

    @contextlib.contextmanager
    def _trying(self) -> Iterator[None]:
        if self._failed:
            raise OutputError(
                f"{self._what} could not be written before. Start again: it goes on where it stopped."
            )
        try:
            with writing(self._what):
                yield
        except BaseException:
            self._failed = True
            raise

    def finish(
        self,
        region: Sequence[int] | None,
        *,
        pack: bool = True,
        progress: Callable[[int, int], None] | None = None,
        **attributes: Any,
    ) -> None:
        """Commit, and mark ``region`` (level-0 pixels; ``None`` is the whole slide) as finished.

        Parameters
        ----------
        region
            What the job was asked for.
        pack
            Pack the masks into few large files if every tile of them is done, see
            :mod:`napari_kdseg.masks.writing.packing`.
        progress
            ``progress(done, total)``, called before every file of that; an exception it raises stops the packing,
            and the finished mask stays as it is.
        **attributes
            Kept beside the region, as JSON.

        Raises
        ------
        OutputError
            As :meth:`write_tile`.
        """
        self.commit()
        attributes["unreadable_tiles"] = self.unreadable
        with writing(self._what):
            self._update(status="complete", regions=[None if region is None else list(region)], **attributes)
        if pack and len(self.done) == self._tiles:
            self._pack(progress)

    def _pack(self, progress: Callable[[int, int], None] | None) -> None:
        waiting = [folder for folder in self._folders if not is_packed(read_attributes(folder))]
        if not waiting:
            return
        with writing(f"{self._what} is complete, but its packed form"):
            total, counter = sum(count_shards(folder) for folder in waiting), itertools.count()

            def step() -> None:
                if progress is not None:
                    progress(next(counter), total)

            self._packed = True
            self._journal.close()  # it moves
            for folder in waiting:
                pack_mask(folder, self._journal.lines() if folder == self._folders[0] else None, step)

    def annotate(self, **attributes: Any) -> None:
        """Keep ``attributes`` (JSON) in the masks' metadata."""
        with writing(self._what):
            self._update(**attributes)

    def __enter__(self) -> MaskWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # On a failing disk the first failure is the one to report; unwritten tiles are simply computed again.
        expected = contextlib.suppress(OutputError) if kind is not None else contextlib.nullcontext()
        try:
            with expected:
                self.commit()
        finally:
            self.close()

    def close(self) -> None:
        """Let the next writer in."""
        self._journal.close()
        for lock in reversed(self._locks):
            lock.close()

    def _catch_up(self) -> None:
        """Carry into the coarser levels what a killed program did not, and take over what slabs hold."""
        self._fill_coarser(self._journal.record.uncarried)
        if self._slab is None:
            slabs = self._journal.slabs()
            for slab, record in slabs.items():
                self._fill_coarser(record.uncarried)
                self._fill_coarser([(slab.row, slab.column)], slab.level)
            if slabs:
                for pyramid in self._pyramids:
                    pyramid.commit()
                self._journal.take_over(slabs)
            if self._journal.done:
                for pyramid in self._pyramids:
                    pyramid.sweep()
        self.commit()

    def _fill_coarser(self, tiles: Iterable[GridIndex], level: int = 0) -> None:
        for row, column in tiles:
            for pyramid in self._pyramids:
                pyramid.carry_stored(row, column, level)
                if pyramid.kept >= TILES_BETWEEN_COMMITS:
                    pyramid.commit()

    def _update(self, regions: Iterable[object] = (), **attributes: Any) -> None:
        for folder in self._folders:
            stored = read_attributes(folder)
            known = stored["kdseg"]["regions"]
            added = [region for region in regions if region not in known]
            about = {**stored["kdseg"], **attributes, "regions": known + added}
            write_attributes(folder, {**stored, "kdseg": about})


def _open_pyramid(folder: Path, attributes: dict[str, Any], tile: int, slab: Slab | None) -> PyramidWriter:
    reduce = reduce_classes if folder.parent.name == "labels" else reduce_probabilities
    levels = len(level_paths(attributes))
    return PyramidWriter(folder, levels if slab is None else min(levels, slab.level + 1), tile, reduce)
