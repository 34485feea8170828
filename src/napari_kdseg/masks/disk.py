"""Writing so that nothing good is lost: durable chunks, and failures in plain words."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from napari_kdseg.errors import OutputError, explain


@contextlib.contextmanager
def writing(what: str) -> Iterator[None]:
    """Put a failing file system into plain words.

    Parameters
    ----------
    what
        What is being written, the subject of the sentence.

    Raises
    ------
    OutputError
        For any :class:`OSError`.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{what} could not be written. {explain(error)} What was finished before is kept."
        ) from error


def flush_to_disk(path: Path) -> None:
    """Wait until ``path`` is durable; a file that does not exist needs nothing."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(path: Path) -> None:
    """Wait until the names in a folder are durable, where a system can be asked for that (POSIX)."""
    if os.name != "posix" or not path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot be asked
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
