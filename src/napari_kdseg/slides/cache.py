"""Decoded tiles of all open slides, the most recently used ones, bounded in bytes and shared by all threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from functools import cache

import numpy as np

DEFAULT_BYTES = 320 * 2**20


class TileCache:
    """Least-recently-used tiles, at most ``max_bytes`` of them together.

    Threads that ask for the same tile at the same time share one decoding. Tiles are handed out read-only.
    """

    def __init__(self, max_bytes: int = DEFAULT_BYTES):
        if max_bytes < 0:
            raise ValueError(f"the size of a tile cache cannot be negative, got {max_bytes}")
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._tiles: OrderedDict[tuple[Hashable, Hashable], np.ndarray] = OrderedDict()
        self._loading: dict[tuple[Hashable, Hashable], Future[np.ndarray]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._tiles)

    def get(self, owner: Hashable, key: Hashable, load: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the tile ``key`` of ``owner``, from memory or from ``load``.

        Raises
        ------
        Exception
            Whatever ``load`` raises, in every thread that waits for this tile; nothing is kept then.
        """
        place = (owner, key)
        with self._lock:
            tile = self._tiles.get(place)
            if tile is not None:
                self._tiles.move_to_end(place)
                return tile
            waiting = self._loading.get(place)
            if waiting is None:
                promise = self._loading[place] = Future()
        if waiting is not None:
            return waiting.result()
        try:
            tile = load()
        except BaseException as error:
            with self._lock:
                del self._loading[place]
            promise.set_exception(error)
            raise
        tile.flags.writeable = False
        with self._lock:
            del self._loading[place]
            self._keep(place, tile)
        promise.set_result(tile)
        return tile

    def find(self, owner: Hashable, key: Hashable) -> np.ndarray | None:
        """Return the tile ``key`` of ``owner`` if it is in memory; nothing is decoded and nobody is waited for."""
        place = (owner, key)
        with self._lock:
            tile = self._tiles.get(place)
            if tile is not None:
                self._tiles.move_to_end(place)
            return tile

    def resize(self, max_bytes: int) -> None:
        """Set the bound of all tiles together, dropping the oldest at once where it is smaller than before."""
        if max_bytes < 0:
            raise ValueError(f"the size of a tile cache cannot be negative, got {max_bytes}")
        with self._lock:
            self.max_bytes = max_bytes
            self._shrink()

    def drop(self, owner: Hashable) -> None:
        """Forget all tiles of ``owner``."""
        with self._lock:
            for place in [place for place in self._tiles if place[0] == owner]:
                self.nbytes -= self._tiles.pop(place).nbytes

    def _keep(self, place: tuple[Hashable, Hashable], tile: np.ndarray) -> None:
        if tile.nbytes > self.max_bytes:
            return
        self._tiles[place] = tile
        self.nbytes += tile.nbytes
        self._shrink()

    def _shrink(self) -> None:
        while self.nbytes > self.max_bytes:
            _, oldest = self._tiles.popitem(last=False)
            self.nbytes -= oldest.nbytes


@cache
def default_cache() -> TileCache:
    """Return the cache that slides share unless they are given another."""
    return TileCache()
