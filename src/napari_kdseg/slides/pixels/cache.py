"""Decoded tiles of all open slides, the most recently used ones, bounded in bytes and shared by all threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import cache

import numpy as np

DEFAULT_BYTES = 320 * 2**20


class _Loading:
    """A tile that is being decoded, and what came of it."""

    __slots__ = ("done", "error", "tile")

    def __init__(self) -> None:
        self.done = False
        self.tile = np.empty(0)
        self.error: BaseException | None = None


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
        self._loading: dict[tuple[Hashable, Hashable], _Loading] = {}
        self._lock = threading.Lock()
        self._loaded = threading.Condition(self._lock)

    def __len__(self) -> int:
        return len(self._tiles)

    def get(self, owner: Hashable, key: Hashable, load: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the tile ``key`` of ``owner``, from memory or from ``load``.

        Raises
        ------
        Exception
            Whatever ``load`` raises, in every thread that waits for this tile; nothing is kept then.
        """
        entry = (owner, key)
        with self._lock:
            tile = self._tiles.get(entry)
            if tile is not None:
                self._tiles.move_to_end(entry)
                return tile
            others = self._loading.get(entry)
            if others is not None:
                self._loaded.wait_for(lambda: others.done)
                if others.error is not None:
                    raise others.error
                return others.tile
            loading = self._loading[entry] = _Loading()
        try:
            tile = loading.tile = load()
            tile.flags.writeable = False
        except BaseException as error:
            loading.error = error
            raise
        finally:
            with self._lock:
                loading.done = True
                del self._loading[entry]
                if loading.error is None:
                    self._keep(entry, loading.tile)
                self._loaded.notify_all()
        return tile

    def find(self, owner: Hashable, key: Hashable) -> np.ndarray | None:
        """Return the tile ``key`` of ``owner`` if it is in memory; nothing is decoded and nobody is waited for."""
        entry = (owner, key)
        with self._lock:
            tile = self._tiles.get(entry)
            if tile is not None:
                self._tiles.move_to_end(entry)
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
            for entry in [entry for entry in self._tiles if entry[0] == owner]:
                self.nbytes -= self._tiles.pop(entry).nbytes

    def _keep(self, entry: tuple[Hashable, Hashable], tile: np.ndarray) -> None:
        if tile.nbytes > self.max_bytes:
            return
        self._tiles[entry] = tile
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
