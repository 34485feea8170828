"""Writing so that nothing good is lost: folders made aside and put in place whole, and failures in plain words."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
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


@contextlib.contextmanager
def made_aside(parent: Path, target: Path, *, replace: bool) -> Iterator[Path]:
    """Give a new folder in ``parent`` that becomes ``target`` when all of it was written.

    Parameters
    ----------
    parent
        An existing folder on the same file system as ``target``.
    target
        What the new folder becomes; untouched if anything fails.
    replace
        Whether ``target`` gives way. Otherwise one that appeared in the meantime stays, and the new one is dropped.
    """
    token = uuid.uuid4().hex[:12]
    new, old = parent / f".{target.name}-{token}.new", parent / f".{target.name}-{token}.old"
    try:
        yield new
        if replace and target.exists():
            os.rename(target, old)
        try:
            os.rename(new, target)
        except OSError:
            if replace or not target.exists():
                raise
    except BaseException:
        if old.exists() and not target.exists():
            os.rename(old, target)
        raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


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
