"""Files and folders written whole or not at all: what was there before is never half replaced."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path


def results_folder() -> Path:
    """Return where notes are kept that belong to no other folder: ``KDSEG_HOME``, or ``napari-kdseg`` at home."""
    return Path(os.environ.get("KDSEG_HOME") or Path.home() / "napari-kdseg")


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write ``content`` to ``path``, making its folder; a failure leaves what was there, and nothing beside it.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    with file_aside(path) as part:
        part.write_bytes(content)


@contextlib.contextmanager
def file_aside(path: Path) -> Iterator[Path]:
    """Give a new file beside ``path`` that becomes it when all of it was written; a failure leaves what was there.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the file and on the same disk, so that the last step is a rename.
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    if os.name == "posix":  # the rename itself is on disk once its folder is
        folder = os.open(path.parent, os.O_RDONLY)
        with contextlib.suppress(OSError):  # some network file systems cannot be asked
            os.fsync(folder)
        os.close(folder)


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
