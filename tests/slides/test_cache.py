from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_kdseg.slides import TileCache


def tile(value: int) -> np.ndarray:
    return np.full((10, 10), value, np.uint8)


def test_memory_stays_bounded_and_the_oldest_goes_first():
    cache = TileCache(350)
    for key in range(3):
        cache.get("slide", key, lambda key=key: tile(key))
    cache.get("slide", 0, lambda: tile(99))  # used again: 1 is the oldest now
    cache.get("slide", 3, lambda: tile(3))
    assert cache.nbytes == 300
    assert cache.get("slide", 0, lambda: tile(99))[0, 0] == 0
    assert cache.get("slide", 1, lambda: tile(99))[0, 0] == 99


def test_a_tile_larger_than_the_cache_is_not_kept():
    cache = TileCache(50)
    assert cache.get("slide", 0, lambda: tile(1))[0, 0] == 1
    assert len(cache) == 0


def test_threads_share_one_decoding():
    cache = TileCache(10_000)
    calls, entered, go = [], threading.Event(), threading.Event()

    def load() -> np.ndarray:
        calls.append(1)
        entered.set()
        go.wait(5)
        return tile(7)

    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(cache.get("s", 0, load))) for _ in range(6)]
    for thread in threads:
        thread.start()
    assert entered.wait(5)
    go.set()
    for thread in threads:
        thread.join(5)
    assert len(calls) == 1
    assert len(results) == 6
    assert all(result is results[0] for result in results)
    with pytest.raises(ValueError, match="read-only"):
        results[0][0, 0] = 1


def test_a_failure_reaches_the_caller_and_is_not_kept():
    cache = TileCache(10_000)

    def fail() -> np.ndarray:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        cache.get("s", 0, fail)
    assert cache.get("s", 0, lambda: tile(5))[0, 0] == 5


def test_tiles_of_a_closed_slide_are_dropped():
    cache = TileCache(10_000)
    cache.get("a", 0, lambda: tile(1))
    cache.get("b", 0, lambda: tile(2))
    cache.drop("a")
    assert (len(cache), cache.nbytes) == (1, 100)


def test_a_cache_is_made_smaller_at_once():
    cache = TileCache(1000)
    for key in range(8):
        cache.get("s", key, lambda key=key: tile(key))
    cache.resize(350)
    assert (len(cache), cache.nbytes) == (3, 300)
    assert cache.find("s", 0) is None
    assert cache.find("s", 7)[0, 0] == 7
    with pytest.raises(ValueError, match="negative"):
        cache.resize(-1)


def test_a_failure_reaches_all_who_wait():
    cache, entered, go, errors = TileCache(1000), threading.Event(), threading.Event(), []

    def fail() -> np.ndarray:
        entered.set()
        go.wait(5)
        raise OSError("gone")

    def ask() -> None:
        try:
            cache.get("s", 0, fail)
        except OSError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert entered.wait(5)
    go.set()
    for thread in threads:
        thread.join(5)
    assert errors == ["gone"] * 4
