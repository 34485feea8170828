"""The levels of a slide that is about to be written: those it has, and those that are made on the way.

Every level is read once, tile by tile in rows. A level that the slide lacks is averaged from the one before while that
is written, and kept in a compressed scratch folder; a band of tiles of each is all that memory holds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from napari_kdseg.slides.annotations.annotation import Annotation
from napari_kdseg.slides.pixels.read_ahead import read_ahead
from napari_kdseg.slides.pixels.resample import halve
from napari_kdseg.slides.slide import Slide

THREADS = max(1, (os.cpu_count() or 2) - 1)
"""That read ahead of the writer."""

ReadRegion = Callable[[int, int, int, int], np.ndarray]


@dataclass
class WrittenLevel:
    """One level of a pyramid.

    Attributes
    ----------
    shape
        Pixels (height, width).
    read
        ``read(y, x, height, width) -> [h, w, c]``; ``None`` until the level before was read.
    """

    shape: tuple[int, int]
    read: ReadRegion | None


class Pyramid:
    """Levels to write, each ``step`` times coarser than the one before.

    Parameters
    ----------
    levels
        From fine to coarse. Those without ``read`` are made when the one before is gone through.
    step
        2 or 4.
    tile
        Side of a tile; a multiple of 16.
    channels, dtype
        Of every pixel.
    scratch
        Folder for the levels that are made; it may not exist yet.
    """

    def __init__(
        self,
        levels: list[WrittenLevel],
        *,
        step: int,
        tile: int,
        channels: int,
        dtype: np.dtype,
        scratch: Path,
    ):
        self.levels = levels
        self.tile = tile
        self.channels = channels
        self.dtype = np.dtype(dtype)
        self._step = step
        self._scratch = scratch
        self._overview: _Overview | None = None

    @property
    def downsamples(self) -> list[tuple[float, float]]:
        """Exact downsample (y, x) of every level."""
        height, width = self.levels[0].shape
        return [(height / level.shape[0], width / level.shape[1]) for level in self.levels]

    @property
    def tile_count(self) -> int:
        """Tiles of all levels together."""
        return sum(math.prod(self.grid(level)) for level in range(len(self.levels)))

    def keep_overview(self, side: int) -> None:
        """Make a small picture while level 0 is gone through: see :meth:`overview`."""
        self._overview = _Overview(self.levels[0].shape, self.channels, self.dtype, side, self.tile)

    @property
    def overview(self) -> np.ndarray:
        """The whole slide as a small picture ``[h, w, channels]``; complete after level 0."""
        if self._overview is None:
            raise RuntimeError("no overview was asked for")
        return self._overview.picture

    def grid(self, level: int) -> tuple[int, int]:
        """Tiles (rows, columns) of a level."""
        height, width = self.levels[level].shape
        return math.ceil(height / self.tile), math.ceil(width / self.tile)

    def tiles(self, level: int) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
        """Go through the tiles of a level in rows: the corner (y, x) and the pixels ``[<= tile, <= tile, channels]``.

        Levels must be gone through from fine to coarse, each to its end.
        """
        here = self.levels[level]
        read = here.read
        if read is None:
            raise RuntimeError(f"level {level} is not made until level {level - 1} was gone through")
        below = self._below(level)
        rows, columns = self.grid(level)
        corners = ((row * self.tile, column * self.tile) for row in range(rows) for column in range(columns))

        def cut(corner: tuple[int, int]) -> np.ndarray:
            y, x = corner
            return read(y, x, min(self.tile, here.shape[0] - y), min(self.tile, here.shape[1] - x))

        left = rows * columns
        for (y, x), pixels in read_ahead(cut, corners, ahead=2 * THREADS, threads=THREADS):
            left -= 1
            if level == 0 and self._overview is not None:
                self._overview.put(y, x, pixels)
            if below is not None:
                below.put(y // self._step, x // self._step, self._shrink(pixels))
                if not left:  # before the last tile is given away: a writer that counts asks for no more
                    below.finish()
                    self.levels[level + 1].read = below.read
            yield (y, x), pixels

    def _below(self, level: int) -> _Made | None:
        if level + 1 == len(self.levels) or self.levels[level + 1].read is not None:
            return None
        shape = (*self.levels[level + 1].shape, self.channels)
        return _Made(self._scratch / str(level + 1), shape, self.dtype, self.tile)

    def _shrink(self, pixels: np.ndarray) -> np.ndarray:
        return _halved(pixels, self._step)


class _Overview:
    """A small picture that is filled tile by tile."""

    def __init__(self, shape: tuple[int, int], channels: int, dtype: np.dtype, side: int, tile: int):
        self._factor = 1
        while max(shape) > side * self._factor and self._factor < tile & -tile:  # tiles must divide evenly
            self._factor *= 2
        height, width = (math.ceil(length / self._factor) for length in shape)
        self.picture = np.zeros((height, width, channels), dtype)

    def put(self, y: int, x: int, block: np.ndarray) -> None:
        small = _halved(block, self._factor)
        y, x = y // self._factor, x // self._factor
        self.picture[y : y + small.shape[0], x : x + small.shape[1]] = small


def _halved(pixels: np.ndarray, factor: int) -> np.ndarray:
    for _ in range(factor.bit_length() - 1):
        pixels = halve(pixels)
    return pixels


class _Made:
    """A level that is filled in rows of blocks and read when it is full."""

    def __init__(self, folder: Path, shape: tuple[int, int, int], dtype: np.dtype, band: int):
        chunks = (min(band, shape[0]), min(2 * band, shape[1]), shape[2])
        self._array = zarr.create_array(
            folder, shape=shape, chunks=chunks, dtype=dtype, compressors=ZstdCodec(level=1)
        )
        self._band = np.zeros((band, *shape[1:]), dtype)
        self._top = 0

    def put(self, y: int, x: int, block: np.ndarray) -> None:
        if y >= self._top + len(self._band):
            self.finish()
            self._top += len(self._band)
        self._band[y - self._top : y - self._top + block.shape[0], x : x + block.shape[1]] = block

    def finish(self) -> None:
        rows = min(len(self._band), self._array.shape[0] - self._top)
        self._array[self._top : self._top + rows] = self._band[:rows]

    def read(self, y: int, x: int, height: int, width: int) -> np.ndarray:
        return np.asarray(self._array[y : y + height, x : x + width])


def slide_pyramid(slide: Slide, *, step: int, tile: int, scratch: Path) -> Pyramid:
    """Lay out the levels of a slide, down to one that fits into two tiles; those that it has are taken as they are."""
    levels = [WrittenLevel(slide.shape, partial(slide.read, 0))]
    while max(levels[-1].shape) > 2 * tile:
        factor = step ** len(levels)
        wanted = (math.ceil(slide.shape[0] / factor), math.ceil(slide.shape[1] / factor))
        own = _own_level(slide, wanted)
        if own is None:
            height, width = levels[-1].shape
            levels.append(WrittenLevel((math.ceil(height / step), math.ceil(width / step)), None))
        else:
            levels.append(WrittenLevel(slide.levels[own].shape, partial(slide.read, own)))
    return Pyramid(levels, step=step, tile=tile, channels=slide.channels, dtype=slide.dtype, scratch=scratch)


def mask_pyramid(annotation: Annotation, *, tile: int, scratch: Path) -> Pyramid:
    """Lay out the levels of a mask; classes are never averaged, each level knows them at its own pixels."""

    def reader(index: int) -> ReadRegion:
        array = annotation.levels[index]
        return lambda y, x, height, width: array[y : y + height, x : x + width][..., None]

    levels = [WrittenLevel(level.shape, reader(index)) for index, level in enumerate(annotation.pyramid)]
    return Pyramid(levels, step=2, tile=tile, channels=1, dtype=np.dtype(np.uint8), scratch=scratch)


def _own_level(slide: Slide, wanted: tuple[int, int]) -> int | None:
    """Find the level of a size in the file, whichever way it was rounded."""
    for index, level in enumerate(slide.metadata.levels):
        if index and all(abs(side - other) <= 1 for side, other in zip(level.shape, wanted, strict=True)):
            return index
    return None
