"""Threads that compute tiles: several tiles at once, few threads a tile."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

#: Tiles that are computed at the same time, at most: each takes memory.
TILES_AT_ONCE = 4


def threads_of_a_tile(threads: int) -> int:
    """Return how many of ``threads`` compute one tile.

    Few threads a tile and several tiles at once are faster than the other way round: threads of one tile wait for each
    other at every layer, and all of them for the slowest, which on a busy machine stops them altogether. More tiles at
    once would take more memory.
    """
    return max(1, threads // TILES_AT_ONCE)


def tiles_at_once(total: int | None, threads: int) -> int:
    """Return how many tiles ``total`` threads (by default all) compute at the same time, each by ``threads``."""
    return max(1, min((total or os.cpu_count() or 1) // threads, TILES_AT_ONCE))


@contextlib.contextmanager
def tile_threads(total: int | None, threads: int) -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """Give a pool and its size: each worker computes a batch with ``threads`` of the ``total`` (by default all)."""
    before = torch.get_num_threads()
    count = tiles_at_once(total, threads)
    ready = threading.Barrier(count + 1)
    with ThreadPoolExecutor(count, "kdseg-predict", torch.set_num_threads, (threads,)) as pool:
        for _ in range(count):
            pool.submit(ready.wait)
        ready.wait()
        torch.set_num_threads(
            before
        )  # theirs are set; what torch tells threads of other jobs stays as it was
        yield pool, count
