"""What is in memory now, at once; the rest from a coarser level, sharp as soon as it is decoded.

A window must never wait for a codec. A region is put together from the tiles that are there within a few
milliseconds; for the others the pixels of a coarser level are enlarged, and the decode threads are asked. Whoever
listens to :class:`ArrivalSignal` then shows the region again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.pixels.decoding import decode_pool
from napari_kdseg.slides.pixels.tiles import TileIndex, Tiles

PATIENCE = 0.004
"""Seconds that a region waits for its tiles: a quarter of a frame of a window that draws 60 of them a second."""
EVERY = 0.1
"""Seconds between two arrivals that are told while more are to come."""
MAX_WAITING = 1024
"""Tiles that wait to be decoded; beyond, those asked for longest ago are given up: nobody looks at them any more."""

Background = Callable[[], tuple[int, ...]]
_log = logging.getLogger(__name__)


class ArrivalSignal:
    """Tell listeners, from a decode thread, that a region shown coarsely can be shown better now."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], None]] = []

    def connect(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` without arguments from now on. It must be quick."""
        self._callbacks.append(callback)

    def disconnect(self, callback: Callable[[], None]) -> None:
        """Call it no more."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def emit(self) -> None:
        """Call all that listen; an error in one is logged."""
        for callback in list(self._callbacks):
            try:
                callback()
            except Exception:  # whoever listens must not end the decode thread
                _log.exception("showing what arrived failed")


class Progressive:
    """Regions of a slide without waiting.

    Parameters
    ----------
    tiles
        Of the slide.
    """

    def __init__(self, tiles: Tiles):
        self.arrivals = ArrivalSignal()
        self._tiles = tiles
        self._last = len(tiles.levels) - 1
        self._overview: np.ndarray | None = None
        self._wanted: dict[TileIndex, None] = {}  # the oldest wish first
        self._decoding: set[TileIndex] = set()
        self._owed = False  # somebody was shown something coarse
        self._told = 0.0
        self._closed = False
        self._changed = threading.Condition()

    def prepare(self) -> np.ndarray:
        """Decode the coarsest level, once, and keep it: so there is always something to show."""
        if self._overview is None:
            self._overview = self._tiles.read(self._last, 0, 0, *self._tiles.levels[self._last].shape)
        return self._overview

    def read(
        self,
        level: int,
        y: int,
        x: int,
        height: int,
        width: int,
        background: Background,
        patience: float = PATIENCE,
    ) -> np.ndarray:
        """Return a region as it can be had within ``patience`` seconds; :attr:`arrivals` tells when there is more."""
        tiles = self._tiles
        if level < self._last and not tiles.fits_cache(level, height, width):
            return tiles.read(level, y, x, height, width, background)  # it would never be complete
        indices = tiles.covering(level, y, x, height, width)
        if level < self._last:
            self._wait_for([index for index in indices if tiles.in_memory(index) is None], patience)
        out = tiles.canvas(level, y, x, height, width, background)
        with tiles.in_use():
            if level == self._last:
                tiles.paste(self.prepare(), (level, 0, 0), out, y, x)
                return out
            absent = []
            for index in indices:
                tile = tiles.in_memory(index)
                if tile is None:
                    absent.append(index)
                    self._enlarge(index, out, y, x, background)
                else:
                    tiles.paste(tile, index, out, y, x)
        if absent:
            self._owe(absent)
        return out

    @property
    def waiting(self) -> int:
        """Number of tiles that are still to be decoded."""
        return len(self._wanted)

    def close(self) -> None:
        """Give up what waits; nobody is told anything any more."""
        with self._changed:
            self._closed = True
            self._wanted.clear()
            self._changed.notify_all()

    # -- asking for tiles ----------------------------------------------------------------------------------------

    def _wait_for(self, missing: list[TileIndex], patience: float) -> None:
        """Have tiles decoded, these before all others and the first of them first, and wait a little for them."""
        if not missing:
            return
        with self._changed:
            for index in reversed(missing):
                self._wanted.pop(index, None)
                self._wanted[index] = None
            for index in list(self._wanted)[: max(len(self._wanted) - MAX_WAITING, 0)]:
                del self._wanted[index]
        pool = decode_pool()
        for index in reversed(missing):
            pool.submit(partial(self._decode, index))
        with self._changed:
            self._changed.wait_for(lambda: not any(index in self._wanted for index in missing), patience)

    def _decode(self, index: TileIndex) -> None:
        """Decode one tile, in a thread of the pool, if anybody still wants it."""
        with self._changed:
            if index not in self._wanted or index in self._decoding:
                return
            self._decoding.add(index)
        try:
            self._tiles.tile(*index)
        except SlideError:
            pass  # closed meanwhile
        except Exception:  # no memory, or a damaged tile that a level is computed from: the others go on
            _log.exception("a tile cannot be had")
        with self._changed:
            self._decoding.discard(index)
            self._wanted.pop(index, None)
            self._changed.notify_all()
        self._tell()

    # -- telling of them -----------------------------------------------------------------------------------------

    def _owe(self, absent: list[TileIndex]) -> None:
        """Remember that something coarse was shown; if it has all arrived since, tell at once."""
        with self._changed:
            self._owed = True
            arrived = not any(index in self._wanted for index in absent)
        if arrived:
            decode_pool().submit(partial(self._tell, at_once=True))

    def _tell(self, *, at_once: bool = False) -> None:
        with self._changed:
            now = time.monotonic()
            due = at_once or not self._wanted or now - self._told >= EVERY
            if self._closed or not self._owed or not due:
                return
            self._told = now
            self._owed = bool(self._wanted)
        self.arrivals.emit()

    # -- meanwhile -----------------------------------------------------------------------------------------------

    def _enlarge(self, index: TileIndex, out: np.ndarray, y: int, x: int, background: Background) -> None:
        """Fill the hole of an absent tile from the finest coarser level that is in memory."""
        level, row, column = index
        there = self._tiles.levels[level]
        height, width = there.tile_shape(row, column)
        top, left = row * there.tile[0], column * there.tile[1]
        y0, y1 = max(top, y), min(top + height, y + out.shape[0])
        x0, x1 = max(left, x), min(left + width, x + out.shape[1])
        hole = out[y0 - y : y1 - y, x0 - x : x1 - x]
        for coarser in range(level + 1, self._last + 1):
            rows, columns = self._beneath(level, coarser, 0, y0, y1), self._beneath(level, coarser, 1, x0, x1)
            first = (int(rows[0]), int(columns[0]))
            pixels = self._have(
                coarser, *first, int(rows[-1]) + 1 - first[0], int(columns[-1]) + 1 - first[1]
            )
            if pixels is not None:
                hole[:] = pixels.take(columns - first[1], axis=1).take(rows - first[0], axis=0)
                return
        hole[:] = background()

    def _beneath(self, fine: int, coarse: int, axis: int, start: int, stop: int) -> np.ndarray:
        """Return the index of the pixel of the coarse level under the middle of each of the fine one's."""
        levels = self._tiles.levels
        ratio = levels[fine].downsample[axis] / levels[coarse].downsample[axis]
        middles = (np.arange(start, stop) + 0.5) * ratio
        return np.minimum(middles.astype(np.int64), levels[coarse].shape[axis] - 1)

    def _have(self, level: int, y: int, x: int, height: int, width: int) -> np.ndarray | None:
        """Return a region if all of it is in memory."""
        if level == self._last:
            return None if self._overview is None else self._overview[y : y + height, x : x + width]
        indices = self._tiles.covering(level, y, x, height, width)
        found = [self._tiles.in_memory(index) for index in indices]
        out = self._tiles.canvas(level, y, x, height, width)
        for tile, index in zip(found, indices, strict=True):
            if tile is None:
                return None
            self._tiles.paste(tile, index, out, y, x)
        return out
