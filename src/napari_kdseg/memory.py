"""Memory of large blocks kept between one tile or batch and the next, where the allocator would give it back each time.

glibc returns blocks above a threshold to the kernel at once, so that every forward pass pays for clearing them anew:
half of the time at tiles of a megapixel, and in the steps of a training. Threads beside the main one have heaps of
64 MB of their own, which go back as soon as they are empty, and larger blocks do not fit in: they take from the main
heap where that is still open to them, and keep theirs where not. A virtual machine pays ten times as much for memory
that it has not used for a while: it is kept for the next job, too, if that comes soon.

All of this is settings of the whole process, and glibc cannot go back to what it does without them. So nothing is set
in a process that was not given to jobs by :func:`keep_memory`, such as napari's.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from collections.abc import Iterator

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
_KEPT = (1 << 31) - 1  # the most that glibc can be told: EMKD frees more than 1 GB a step
_HEAP = 1 << 26
#: Seconds after a job until its memory is given back.
KEPT_S = 20.0

_lock = threading.Lock()
_given_to_jobs = False
_inside = 0
_waiting: threading.Timer | None = None


def keep_memory() -> None:
    """Let jobs keep freed memory from now on until this process ends.

    For processes that are there for jobs: the command, one spawned for a job, a worker of a scheduler; and for a
    window whose owner chose it.
    """
    global _given_to_jobs
    _given_to_jobs = True


@contextlib.contextmanager
def blocks_kept() -> Iterator[None]:
    """Keep freed memory for the next batch inside, and give it back a while later.

    Does nothing on other systems than Linux, and in processes without :func:`keep_memory`.
    """
    library = _glibc() if _given_to_jobs else None
    if library is None:
        yield
        return
    # One alone would be worse than none: setting either switches off what glibc learns by itself.
    library.mallopt(_MMAP_THRESHOLD, _KEPT)
    library.mallopt(_TRIM_THRESHOLD, _KEPT)
    library.mallopt(_TOP_PAD, _HEAP)
    library.mallopt(_ARENA_MAX, 1)
    _enter()
    try:
        yield
    finally:
        _leave()


def give_back() -> None:
    """Give back what is free now: blocks of other sizes are of no use to what comes next."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if library is not None and hasattr(library, "mallopt") else None


def _enter() -> None:
    global _inside
    with _lock:
        _inside += 1
        if _waiting is not None:
            _waiting.cancel()


def _leave() -> None:
    global _inside, _waiting
    with _lock:
        _inside -= 1
        if _inside == 0:
            _waiting = threading.Timer(KEPT_S, give_back)
            _waiting.name, _waiting.daemon = "give-memory-back", True
            _waiting.start()
