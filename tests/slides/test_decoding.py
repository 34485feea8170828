from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from napari_kdseg.slides.pixels.decoding import DecodePool, decode_pool, set_decode_threads
from napari_kdseg.slides.readers.tiff import file_bytes
from napari_kdseg.slides.readers.tiff.file_bytes import FileBytes


def test_one_processor_is_left_to_the_window():
    set_decode_threads(None)
    assert decode_pool().threads == max(1, (os.cpu_count() or 2) - 1)
    set_decode_threads(3)
    assert decode_pool().threads == 3
    set_decode_threads(None)
    with pytest.raises(ValueError, match="at least one"):
        DecodePool(0)


def test_shared_work_is_done_once_and_by_several():
    pool, done, who = DecodePool(2), [], set()
    together = threading.Barrier(3, timeout=10)

    def work(item: int) -> None:
        if item < 3:
            together.wait()
        done.append(item)
        who.add(threading.get_ident())

    pool.share(work, range(50), threads=3)
    assert sorted(done) == list(range(50))
    assert len(who) == 3
    pool.close()


def test_shared_work_does_not_wait_for_busy_threads():
    pool, go, done = DecodePool(1), threading.Event(), []
    pool.submit(lambda: go.wait(10))
    pool.share(done.append, range(10), threads=2)
    assert done == list(range(10))
    go.set()
    pool.close()


@pytest.mark.parametrize("culprit", ["this thread", "another thread"])
def test_the_first_error_ends_shared_work(culprit):
    pool, here = DecodePool(1), threading.get_ident()

    def work(item: int) -> None:
        if (threading.get_ident() == here) == (culprit == "this thread"):
            raise OSError("gone")
        time.sleep(0.001)

    with pytest.raises(OSError, match="gone"):
        pool.share(work, range(2000), threads=2)
    pool.close()


def test_the_newest_work_is_done_first():
    pool, go, done, finished = DecodePool(1), threading.Event(), [], threading.Event()
    begun = threading.Event()
    pool.submit(lambda: (begun.set(), go.wait(10)))
    assert begun.wait(10)
    pool.submit(finished.set)
    for number in range(5):
        pool.submit(lambda number=number: done.append(number))
    go.set()
    assert finished.wait(10)
    assert done == [4, 3, 2, 1, 0]
    pool.close()


@pytest.mark.parametrize("positioned", [True, False])
def test_bytes_of_a_file_from_many_threads(tmp_path, monkeypatch, positioned):
    monkeypatch.setattr(file_bytes, "POSITIONED", positioned and hasattr(os, "pread"))
    content = os.urandom(100_000)
    (tmp_path / "bytes").write_bytes(content)
    file = FileBytes(tmp_path / "bytes")
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda start: file.read(start, 500), range(0, 99_000, 77)))
    assert all(
        part == content[start : start + 500] for start, part in zip(range(0, 99_000, 77), parts, strict=True)
    )
    with pytest.raises(EOFError, match="ends within"):
        file.read(99_900, 500)
    file.close()
