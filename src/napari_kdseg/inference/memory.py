"""Memory of large blocks kept between one tile and the next, where the system's allocator would give it back each time.

glibc returns blocks above a threshold to the kernel at once, so that every forward pass pays for clearing them anew:
half of the time at tiles of a megapixel.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT = 1 << 30


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
    try:
        yield
    finally:
        library.malloc_trim(0)
