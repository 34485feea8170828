"""One chunk of a mask as a file, as zarr writes it, and durable when it is written.

zarr hands every chunk to an event loop in another thread, which takes several times as long as compressing it; and it
does not wait until the chunk is durable. What is written here is what zarr's zstd codec reads.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import numpy as np
from numcodecs.zstd import Zstd

from napari_kdseg.masks.disk import flush_names
from napari_kdseg.masks.reduction import NOT_COMPUTED

#: As in :data:`napari_kdseg.masks.writing.packing.COMPRESSION`.
CODEC = Zstd(level=1)
#: How the name of a half ends that a killed program may leave.
HALF = ".partial"


def write_chunk(array: Path, row: int, column: int, chunk: np.ndarray) -> None:
    """Write a chunk and wait until it is durable under its name; a chunk without a computed pixel has no file.

    Parameters
    ----------
    array
        Folder of a zarr 3 array of uint8 with one zstd codec and the fill value 255.
    row, column
        Where it is in its grid of chunks.
    chunk
        uint8 ``[h, w]``, a whole chunk, padded with 255.
    """
    folder = array / "c" / str(row)
    path = folder / str(column)
    if (chunk == NOT_COMPUTED).all():
        if path.exists():
            path.unlink()
            flush_names([folder])
        return
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        flush_names([array, array / "c"])
    half = folder / f"{secrets.token_hex(8)}{HALF}"
    try:
        with half.open("wb") as file:
            file.write(CODEC.encode(np.ascontiguousarray(chunk)))
            file.flush()
            os.fsync(file.fileno())
        os.replace(half, path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise
    flush_names([folder])
