"""One job a folder: the system frees the lock when the process that holds it dies, here or on another machine."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from napari_kdseg.errors import OutputError, explain


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock ``path``, a file in the folder that it is for; the file is there as long as it is held.

    Raises
    ------
    OutputError
        If another job holds it, or the file cannot be written.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise OutputError(_occupied(path)) from error
    except OSError as error:
        raise OutputError(f"The run folder {path.parent} cannot be used. {explain(error)}") from error
    try:
        with contextlib.suppress(OSError):  # Windows lets nobody write there: then nobody is named
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):  # the folder may be gone
            path.unlink(missing_ok=True)  # before it is free: afterwards it might be another's
        lock.release()


def _occupied(path: Path) -> str:
    try:
        holder = f" ({path.read_text(encoding='utf-8')})"
    except OSError:  # given back meanwhile, or Windows
        holder = ""
    return f"Another job{holder} is writing to the run folder {path.parent}. Wait for it, or choose another folder."
