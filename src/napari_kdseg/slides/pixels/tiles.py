"""The tiles of one slide: decoded once, shared by all threads, with a place in the list where one is damaged.

Slides whose file has no small level get further ones here, averaged from the finer ones on demand.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.pixels.cache import TileCache
from napari_kdseg.slides.pixels.decoding import decode_pool
from napari_kdseg.slides.pixels.resample import halve
from napari_kdseg.slides.readers.backend import Backend, Level, block_of, make_level
from napari_kdseg.slides.readers.refusals import reason_of_tile

COARSEST_SIDE = 2048
"""napari keeps the coarsest level in memory: slides without one this small are given further levels."""

MAX_COMPUTED_PIXELS = 2**30
"""Largest level those are computed from: its every tile has to be decoded once."""

_owners = itertools.count()
_log = logging.getLogger(__name__)

TileIndex = tuple[int, int, int]
"""Level, row and column of a tile."""


class BadTile(NamedTuple):
    """A tile that could not be read."""

    level: int
    row: int
    column: int
    reason: str


class Tiles:
    """Tiles of a backend, and of the smaller levels computed from them.

    Parameters
    ----------
    backend
        Reads the tiles of the file.
    cache
        Keeps those decoded last.
    bad_value
        Value of the pixels of a tile that cannot be read.
    threads
        That decode the tiles of one region; by default those of the decode pool.
    """

    def __init__(self, backend: Backend, cache: TileCache, bad_value: int, threads: int | None = None):
        self.levels = with_small_levels(backend.metadata.levels)
        self.bad: list[BadTile] = []
        self.on_bad: list[Callable[[BadTile], None]] = []
        self._bad_indices: set[TileIndex] = set()
        self._threads = threads
        self._backend = backend
        self._bad_value = bad_value
        self._cache = cache
        self._owner = next(_owners)
        self._idle = threading.Condition()
        self._reading = 0
        self._closed = False

    def tile(self, level: int, row: int, column: int) -> np.ndarray:
        """Return one tile, ``[<= tile height, <= tile width, channels]``, read-only."""
        with self.in_use():
            return self._tile((level, row, column))

    def _tile(self, index: TileIndex) -> np.ndarray:
        """Return one tile while the file is held open."""
        return self._cache.get(self._owner, index, partial(self._load, *index))

    def in_memory(self, index: TileIndex) -> np.ndarray | None:
        """Return a tile if it is decoded already."""
        return self._cache.find(self._owner, index)

    def fits_cache(self, level: int, height: int, width: int) -> bool:
        """Tell whether all tiles of a region can be in memory at once, with as many again of other views."""
        pixels = math.prod(
            side + 2 * tile for side, tile in zip((height, width), self.levels[level].tile, strict=True)
        )
        metadata = self._backend.metadata
        return 2 * pixels * metadata.channels * metadata.dtype.itemsize <= self._cache.max_bytes

    def covering(self, level: int, y: int, x: int, height: int, width: int) -> list[TileIndex]:
        """Return the tiles that a region touches, row by row."""
        (th, tw), (rows, columns) = self.levels[level].tile, self.levels[level].grid
        return [
            (level, row, column)
            for row in range(max(y // th, 0), min(-(-(y + height) // th), rows))
            for column in range(max(x // tw, 0), min(-(-(x + width) // tw), columns))
        ]

    def read(
        self,
        level: int,
        y: int,
        x: int,
        height: int,
        width: int,
        background: Callable[[], tuple[int, ...]] | None = None,
    ) -> np.ndarray:
        """Put a region together from tiles; ``background`` gives the colour of what lies outside the level."""
        with self.in_use():
            return self._read(level, y, x, height, width, background)

    def _read(
        self,
        level: int,
        y: int,
        x: int,
        height: int,
        width: int,
        background: Callable[[], tuple[int, ...]] | None = None,
    ) -> np.ndarray:
        """Put a region together while the file is held open."""
        out = self.canvas(level, y, x, height, width, background)
        absent = []
        for index in self.covering(level, y, x, height, width):
            tile = self.in_memory(index)
            if tile is None:
                absent.append(index)
            else:
                self.paste(tile, index, out, y, x)
        if absent:
            self._fill(absent, out, y, x)
        return out

    def _fill(self, absent: list[TileIndex], out: np.ndarray, y: int, x: int) -> None:
        """Decode tiles into a region, several at a time where that is worth waking a thread for."""

        def fill(index: TileIndex) -> None:
            self.paste(self._tile(index), index, out, y, x)

        pool = decode_pool()
        threads = pool.threads if self._threads is None else self._threads
        if threads > 1 and len(absent) > 2:
            pool.share(fill, absent, threads)
        else:
            for index in absent:
                fill(index)

    def canvas(
        self,
        level: int,
        y: int,
        x: int,
        height: int,
        width: int,
        background: Callable[[], tuple[int, ...]] | None = None,
    ) -> np.ndarray:
        """Return an array for the pixels of a region; what lies outside the level has the background colour."""
        there, metadata = self.levels[level], self._backend.metadata
        out = np.empty((height, width, metadata.channels), metadata.dtype)
        if y < 0 or x < 0 or y + height > there.shape[0] or x + width > there.shape[1]:
            out[:] = 0 if background is None else background()
        return out

    def paste(self, tile: np.ndarray, index: TileIndex, out: np.ndarray, y: int, x: int) -> None:
        """Put a tile where it belongs in the region that begins at ``y, x``."""
        level, row, column = index
        th, tw = self.levels[level].tile
        top, left = row * th - y, column * tw - x
        y0, x0 = max(top, 0), max(left, 0)
        y1, x1 = min(top + tile.shape[0], out.shape[0]), min(left + tile.shape[1], out.shape[1])
        out[y0:y1, x0:x1] = tile[y0 - top : y1 - top, x0 - left : x1 - left]

    def samples(self) -> list[np.ndarray]:
        """Return up to nine tiles spread over the coarsest level of the file."""
        level = len(self._backend.metadata.levels) - 1
        return [self.tile(level, row, column) for row, column in self.levels[level].spread()]

    def close(self) -> None:
        """Wait for reads that are under way, then give the file and the memory back."""
        with self._idle:
            if self._closed:
                return
            self._closed = True
            self._idle.wait_for(lambda: self._reading == 0)
        self._backend.close()
        self._cache.drop(self._owner)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Hold the file open: native libraries do not survive being closed while they read.

        Raises
        ------
        SlideError
            If it was closed already.
        """
        with self._idle:
            if self._closed:
                raise SlideError("This slide was closed. Open it again to read from it.")
            self._reading += 1
        try:
            yield
        finally:
            with self._idle:
                self._reading -= 1
                self._idle.notify_all()

    def _load(self, level: int, row: int, column: int) -> np.ndarray:
        there, metadata = self.levels[level], self._backend.metadata
        height, width = there.tile_shape(row, column)
        if level >= len(metadata.levels):
            finer = self.levels[level - 1].shape
            top, left = 2 * row * there.tile[0], 2 * column * there.tile[1]
            size = (min(2 * height, finer[0] - top), min(2 * width, finer[1] - left))
            return halve(self._read(level - 1, top, left, *size))
        shape = (height, width, metadata.channels)
        try:
            tile = self._backend.read_tile(level, row, column)
            if tile.shape != shape:
                raise ValueError(f"a tile of shape {tile.shape} where {shape} was expected")
        except MemoryError:
            raise
        except (
            Exception
        ) as error:  # decoders raise anything on damaged data; the tile is shown grey and listed
            self._list_bad(BadTile(level, row, column, reason_of_tile(error)))
            return np.full(shape, self._bad_value, metadata.dtype)
        return np.ascontiguousarray(tile)

    def _list_bad(self, bad: BadTile) -> None:
        with self._idle:
            if bad[:3] in self._bad_indices:
                return
            self._bad_indices.add(bad[:3])
            self.bad.append(bad)
        for callback in list(self.on_bad):
            try:
                callback(bad)
            except Exception:  # whoever listens must not make a picture fail
                _log.exception("reporting a damaged tile failed")


def with_small_levels(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    """Append levels of half the size until the coarsest is small.

    Raises
    ------
    SlideError
        If the coarsest level of the file is so large that an overview cannot be computed in reasonable time.
    """
    height, width = levels[-1].shape
    if max(height, width) > COARSEST_SIDE and height * width > MAX_COMPUTED_PIXELS:
        raise SlideError(
            f"The smallest level of this slide has {width} x {height} px: an overview would take minutes to compute. "
            "Convert it to a pyramid first: kdseg convert in.tif out.ome.tif."
        )
    tile = block_of(levels[-1].tile)
    more = list(levels)
    while max(more[-1].shape) > COARSEST_SIDE:
        height, width = more[-1].shape
        more.append(make_level((math.ceil(height / 2), math.ceil(width / 2)), levels[0].shape, tile))
    return tuple(more)
