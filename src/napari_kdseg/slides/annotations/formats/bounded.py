"""Reading annotation files that may be damaged or hostile: sizes are checked before anything is unpacked or parsed."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from napari_kdseg.errors import SlideError

MAX_BYTES = 512 * 2**20
"""Of a file, and of what comes out of a compressed one."""

GZIP_MAGIC = b"\x1f\x8b"


def read_bounded(path: Path) -> bytes:
    """Read a file, unpacked if it is compressed with gzip, whatever it is called.

    Raises
    ------
    SlideError
        If it is missing, too large, empty, or its compression is damaged.
    """
    if not path.is_file():
        raise SlideError(f"There is no annotation file at {path}. Check whether it was moved or renamed.")
    if path.stat().st_size > MAX_BYTES:
        raise _too_large(path)
    with path.open("rb") as file:
        packed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        try:
            content = gzip.GzipFile(fileobj=file).read(MAX_BYTES + 1) if packed else file.read(MAX_BYTES + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise SlideError(
                f"{path.name} is truncated or damaged: it cannot be unpacked ({error}). Export it again."
            ) from error
    if len(content) > MAX_BYTES:
        raise _too_large(path)
    if not content.strip():
        raise SlideError(f"{path.name} is empty. Export it again.")
    return content


def _too_large(path: Path) -> SlideError:
    return SlideError(
        f"{path.name} holds more than {MAX_BYTES // 2**20} MB of annotations. Export fewer objects at a time."
    )
