"""Memory of large blocks kept between one tile and the next, where the system's allocator would give it back each time.

glibc returns blocks above a threshold to the kernel at once, so that every forward pass pays for clearing them anew:
half of the time at tiles of a megapixel. Threads beside the main one have heaps of 64 MB of their own, which go back as
soon as they are empty, and larger blocks do not fit in: they take from the main heap where that is still open to them,
and keep theirs where not.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
_KEPT = 1 << 30
_HEAP = 1 << 26


@contextlib.contextmanager
def blocks_kept() -> Iterator[None]:
    """Keep freed memory for the next tile inside, and give it back afterwards. Does nothing on other systems."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallopt"):
        yield
        return
    # One alone would be worse than none: setting either switches off what glibc learns by itself.
    library.mallopt(_MMAP_THRESHOLD, _KEPT)
    library.mallopt(_TRIM_THRESHOLD, _KEPT)
    library.mallopt(_TOP_PAD, _HEAP)
    library.mallopt(_ARENA_MAX, 1)
    try:
        yield
    finally:
        library.malloc_trim(0)
