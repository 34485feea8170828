"""Reading masks from a store, also while a job is still writing them.

Every read looks at the chunks on disk, so a growing mask shows at once, and any thread may read.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from napari_kdseg.errors import SlideError
from napari_kdseg.masks.metadata import META, journal_path, level_paths, read_attributes
from napari_kdseg.masks.names import name_of
from napari_kdseg.masks.reduction import NOT_COMPUTED
from napari_kdseg.slides import LevelArray
from napari_kdseg.slides.pixels.cache import TileCache

Pair = tuple[float, float]


@dataclass(frozen=True)
class MaskPyramid:
    """One mask of a store.

    Attributes
    ----------
    path
        Folder of the mask.
    name
        ``"student"``; probabilities carry their group, ``"probabilities/student"``.
    levels
        From fine to coarse: uint8 ``[height, width]``, 255 = not computed.
    downsamples
        ``(y, x)`` of every level against level 0 of the slide.
    classes, colours
        Names and ``(r, g, b)`` of the classes; empty for probabilities.
    metadata
        What made the mask, as recorded in the store.
    """

    path: Path
    name: str
    levels: tuple[LevelArray, ...]
    downsamples: tuple[Pair, ...]
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    metadata: dict[str, Any]

    @property
    def downsample(self) -> Pair:
        """``(y, x)`` of the finest level."""
        return self.downsamples[0]

    @property
    def mpp(self) -> Pair | None:
        """Micrometres a pixel ``(y, x)`` of the slide's level 0 when the mask was made, if known."""
        mpp = self.metadata.get("slide_mpp")
        return None if mpp is None else (float(mpp[0]), float(mpp[1]))

    @property
    def is_empty(self) -> bool:
        """Whether no tile is done yet, of a mask that holds a journal."""
        try:
            return journal_path(self.path).stat().st_size == 0
        except OSError:
            return False

    def read_scaled(self, downsample: float | Pair, y: int, x: int, height: int, width: int) -> np.ndarray:
        """Read an imaginary level of any downsample by nearest neighbour.

        Parameters
        ----------
        downsample
            Of the imaginary level against level 0 of the slide, one number or ``(y, x)``.
        y, x, height, width
            Block in pixels of the imaginary level; it may reach outside the slide.

        Returns
        -------
        numpy.ndarray
            uint8 ``[height, width]``; 255 outside the slide and where nothing was computed.
        """
        wanted = downsample if isinstance(downsample, tuple) else (downsample, downsample)
        return sample_nearest(self.levels, self.downsamples, wanted, y, x, height, width)


def sample_nearest(
    levels: Sequence[Any], downsamples: Sequence[Pair], wanted: Pair, y: int, x: int, height: int, width: int
) -> np.ndarray:
    """Sample a block of an imaginary level from the coarsest level that is at least as fine.

    The centre of pixel ``i`` at downsample ``f`` lies in pixel ``floor((i + 1/2) f / g)`` at downsample ``g``.
    """
    fine_enough = [
        index
        for index, (level_y, level_x) in enumerate(downsamples)
        if level_y <= wanted[0] * (1 + 1e-6) and level_x <= wanted[1] * (1 + 1e-6)
    ]
    index = fine_enough[-1] if fine_enough else 0
    level, (factor_y, factor_x) = levels[index], downsamples[index]
    rows = np.floor((np.arange(y, y + height) + 0.5) * (wanted[0] / factor_y) + 1e-6).astype(np.int64)
    columns = np.floor((np.arange(x, x + width) + 0.5) * (wanted[1] / factor_x) + 1e-6).astype(np.int64)
    inside_rows = (rows >= 0) & (rows < level.shape[0])
    inside_columns = (columns >= 0) & (columns < level.shape[1])
    rows, columns = rows[inside_rows], columns[inside_columns]
    if not (rows.size and columns.size):
        return np.full((height, width), NOT_COMPUTED, dtype=np.uint8)
    block = np.asarray(level[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    if block.shape != (rows.size, columns.size):
        block = block[np.ix_(rows - rows[0], columns - columns[0])]
    if block.shape == (height, width):
        return block
    out = np.full((height, width), NOT_COMPUTED, dtype=np.uint8)
    out[np.ix_(inside_rows, inside_columns)] = block
    return out


#: Decoded chunks of all masks that are looked at.
_chunks = TileCache(64 * 2**20)
#: Chunks of a region that are looked up one by one; more are read faster together, and would leave no room for others.
MOST_FROM_MEMORY = 32


class _StoredLevel:
    """One level on disk, which may move while it is being looked at: packing gives a mask new arrays.

    Nothing is decoded by the layout of another array: an array whose metadata is not what it was is opened again, and
    what was read in the meantime is read again.
    """

    def __init__(self, folder: Path, index: int):
        self._folder, self._index = folder, index
        self._now = self._open()
        array = self._now[0]
        self.shape, self.dtype, self.chunks = array.shape, array.dtype, array.chunks

    def read(self, y: int, x: int, height: int, width: int) -> np.ndarray:
        """Read a region inside the level; 255 if the mask is gone or became another one."""
        while True:
            array, folder, stamp = self._now
            if array.shape != self.shape:
                break
            try:
                pixels = _read(array, folder, y, x, height, width)
            except Exception:  # half removed; or damaged, and then it is no different the next time
                if _stamp(folder) == stamp:
                    raise
            else:
                if _stamp(folder) == stamp:
                    return pixels
            try:
                self._now = self._open()
            except (OSError, ValueError, KeyError, IndexError):
                break
        return np.full((height, width), NOT_COMPUTED, np.uint8)

    def _open(self) -> tuple[zarr.Array, Path, object]:
        folder = self._folder / level_paths(read_attributes(self._folder))[self._index]
        stamp = _stamp(folder)
        return zarr.open_array(folder, mode="r"), folder, stamp


def _read(array: zarr.Array, folder: Path, y: int, x: int, height: int, width: int) -> np.ndarray:
    """Read a region; of a small one, chunks whose files did not change since come from memory.

    While a mask grows the window looks at it several times a second, and most of what is on screen stays as it was.
    """
    tall, wide = array.chunks
    rows, columns = range(y // tall, -(-(y + height) // tall)), range(x // wide, -(-(x + width) // wide))
    if len(rows) * len(columns) > MOST_FROM_MEMORY:
        return np.asarray(array[y : y + height, x : x + width])
    out = np.empty((height, width), array.dtype)
    for row, column in itertools.product(rows, columns):
        chunk = _chunk(array, folder, row, column)
        top, left = max(row * tall, y), max(column * wide, x)
        bottom = min(row * tall + chunk.shape[0], y + height)
        right = min(column * wide + chunk.shape[1], x + width)
        out[top - y : bottom - y, left - x : right - x] = chunk[
            top - row * tall : bottom - row * tall, left - column * wide : right - column * wide
        ]
    return out


def _chunk(array: zarr.Array, folder: Path, row: int, column: int) -> np.ndarray:
    tall, wide = array.chunks
    file_tall, file_wide = array.shards or array.chunks
    stamp = _file_stamp(folder / "c" / str(row * tall // file_tall) / str(column * wide // file_wide))

    def load() -> np.ndarray:
        area = np.asarray(array[row * tall : (row + 1) * tall, column * wide : (column + 1) * wide])
        return np.array(area)

    return _chunks.get(str(folder), (row, column, stamp), load)


def _stamp(folder: Path) -> object:
    """What changes when the array at ``folder`` is another one; ``None`` when there is none."""
    return _file_stamp(folder / META)


def _file_stamp(path: Path) -> object:
    try:
        about = os.stat(path)
    except OSError:
        return None
    return about.st_ino, about.st_mtime_ns


def as_level(folder: Path, index: int) -> LevelArray:
    """Wrap level ``index`` of the mask in ``folder`` as an array that napari slices."""
    level = _StoredLevel(folder, index)
    return LevelArray(level.read, level.shape, level.dtype, level.chunks)


def open_masks(path: str | Path) -> dict[str, MaskPyramid]:
    """Open every mask of a store for reading.

    Parameters
    ----------
    path
        The ``*.ome.zarr`` folder.

    Returns
    -------
    dict of str to MaskPyramid
        Labels under their name (``"student"``), probabilities under ``"probabilities/<name>"``.

    Raises
    ------
    SlideError
        If this is not a mask store.
    """
    folder = Path(path)
    if not (folder / "zarr.json").is_file():
        raise SlideError(
            f"{folder.name} is not a mask store: it holds no zarr.json. Choose a folder *.ome.zarr."
        )
    masks = {}
    for group in ("labels", "probabilities"):
        for member in sorted((folder / group).glob("*/zarr.json")):
            name = name_of(member.parent).removeprefix("labels/")
            masks[name] = _open_pyramid(member.parent, name)
    return masks


def _open_pyramid(folder: Path, name: str) -> MaskPyramid:
    try:
        attributes = read_attributes(folder)
        metadata = attributes["kdseg"]
        levels = tuple(as_level(folder, index) for index in range(len(level_paths(attributes))))
        return MaskPyramid(
            path=folder,
            name=name,
            levels=levels,
            downsamples=tuple((float(y), float(x)) for y, x in metadata["downsamples"]),
            classes=tuple(metadata["classes"]),
            colours=tuple((int(r), int(g), int(b)) for r, g, b in metadata["colours"]),
            metadata=metadata,
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise SlideError(
            f"The mask {name!r} in {folder.parent.parent.name} was not made by this program or is damaged ({error!r}). "
            "Remove it, or predict it again under another name."
        ) from error
