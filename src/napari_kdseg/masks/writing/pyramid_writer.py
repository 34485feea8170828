"""Writing a growing pyramid: the tile itself at once and for good, its coarser levels at every commit.

Coarser chunks are kept in memory between two commits, so the four tiles beneath a parent cost one write, not four; and
some of them longer, since the next tile mostly lies beneath the same parents.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr

from napari_kdseg.masks.reduction import NOT_COMPUTED, Reduce
from napari_kdseg.masks.writing.chunk_file import HALF, write_chunk

#: Coarser chunks that stay in memory after a commit.
STAY = 16


class PyramidWriter:
    """The levels of one mask, open for writing by tiles.

    Parameters
    ----------
    folder
        Folder of the mask group, with one array a level: ``0`` (finest), ``1`` ...
    levels
        How many there are.
    tile
        Side of a chunk of every level, even.
    reduce
        Halves a block, see :mod:`napari_kdseg.masks.reduction`.
    """

    def __init__(self, folder: Path, levels: int, tile: int, reduce: Reduce):
        self._folder = folder
        self._arrays = [zarr.open_array(folder / str(level), mode="r+") for level in range(levels)]
        self._tile = tile
        self._reduce = reduce
        self._coarse: dict[tuple[int, int, int], np.ndarray] = {}  # the one that was changed last is last
        self._changed: set[tuple[int, int, int]] = set()

    def write(self, row: int, column: int, block: np.ndarray) -> None:
        """Write the tile ``(row, column)`` and wait until it is durable; any number of threads may do so.

        Parameters
        ----------
        row, column
            Of the tile in the grid.
        block
            uint8 ``[h, w]``; a whole tile, or less at the lower and right edge of the mask.
        """
        chunk = block
        if block.shape != (self._tile, self._tile):
            chunk = np.full((self._tile, self._tile), NOT_COMPUTED, dtype=np.uint8)
            chunk[: block.shape[0], : block.shape[1]] = block
        write_chunk(self._folder / "0", row, column, chunk)

    def carry(self, row: int, column: int, block: np.ndarray, level: int = 0) -> None:
        """Carry the chunk ``(row, column)`` of ``level`` into the coarser levels, which are kept until a commit.

        Parameters
        ----------
        row, column, block
            As for :meth:`write`, at ``level``.
        level
            By default a tile.
        """
        top, left = row * self._tile, column * self._tile
        for coarser in range(level + 1, len(self._arrays)):
            # Grown to even bounds, a tile never leaves the chunk it lies in: chunks begin at even pixels.
            parent = self._reduce(block)
            top, left = top // 2, left // 2
            chunk, y, x = self._chunk(coarser, top, left)
            height, width = parent.shape
            chunk[y : y + height, x : x + width] = parent
            bottom, right = y + height + (y + height) % 2, x + width + (x + width) % 2
            y, x = y - y % 2, x - x % 2
            top, left = top - top % 2, left - left % 2
            block = chunk[y:bottom, x:right]

    def carry_stored(self, row: int, column: int, level: int = 0) -> None:
        """Carry a chunk of ``level`` into the coarser levels once more, as it is now."""
        top, left = row * self._tile, column * self._tile
        kept = self._coarse.get((level, row, column))
        if kept is None:
            block = np.asarray(self._arrays[level][top : top + self._tile, left : left + self._tile])
        else:
            height, width = self._arrays[level].shape
            block = kept[: height - top, : width - left]
        self.carry(row, column, block, level)

    @property
    def levels(self) -> int:
        """How many levels are written."""
        return len(self._arrays)

    @property
    def kept(self) -> int:
        """How many coarser chunks wait in memory for a commit."""
        return len(self._changed)

    def commit(self) -> None:
        """Write the coarser chunks, and wait until they are durable."""
        for level, row, column in sorted(self._changed):
            write_chunk(self._folder / str(level), row, column, self._coarse[level, row, column])
        self._changed.clear()
        for key in list(self._coarse)[:-STAY]:
            del self._coarse[key]

    def sweep(self) -> None:
        """Remove halves of chunks that a killed program left beside them, where zarr writes before it renames."""
        for half in self._folder.glob(f"*/c/*/*{HALF}"):
            half.unlink(missing_ok=True)

    def _chunk(self, level: int, y: int, x: int) -> tuple[np.ndarray, int, int]:
        """Return the chunk that holds pixel ``(y, x)`` of ``level``, to change it, and where in it the pixel is."""
        row, column = y // self._tile, x // self._tile
        key = (level, row, column)
        if key not in self._coarse:
            top, left = row * self._tile, column * self._tile
            chunk = np.full((self._tile, self._tile), NOT_COMPUTED, dtype=np.uint8)
            if (self._folder / str(level) / "c" / str(row) / str(column)).exists():
                stored = np.asarray(self._arrays[level][top : top + self._tile, left : left + self._tile])
                chunk[: stored.shape[0], : stored.shape[1]] = stored
            self._coarse[key] = chunk
        self._coarse[key] = self._coarse.pop(key)
        self._changed.add(key)
        return self._coarse[key], y - row * self._tile, x - column * self._tile
