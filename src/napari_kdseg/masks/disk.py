"""Writing so that nothing good is lost: durable files and folders, one writer at a time, failures in plain words."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from napari_kdseg.errors import OutputError, explain

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt

#: What file systems, some of networks, say that know no such thing as a durable folder.
CANNOT_BE_ASKED = {errno.EINVAL, errno.ENOTSUP}


#: Bytes of a lock file on Windows, where locking all of them or one of them stands for exclusive and shared.
_LOCKED = 1 << 30


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


def flush_to_disk(files: Iterable[Path]) -> None:
    """Wait until ``files`` are durable: their content, and then their names in the folders that hold them.

    Files that do not exist need nothing: a block without a computed pixel has none.
    """
    folders = set()
    for path in files:
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        folders.add(path.parent)
    flush_names(folders)


def flush_names(folders: Iterable[Path]) -> None:
    """Wait until the names of the files in ``folders`` are durable, where the system knows of such a thing."""
    if os.name != "posix":
        return
    for folder in sorted(folders):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in CANNOT_BE_ASKED:
                raise
        finally:
            os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """Wait until all of ``folder`` is durable."""
    flush_to_disk(path for path in folder.rglob("*") if path.is_file())
    flush_names([folder, *(path for path in folder.rglob("*") if path.is_dir())])


def recover(scratch: Path, target: Path) -> None:
    """Clean up after a program that was killed while it replaced ``target`` by a folder made in ``scratch``.

    An old folder that had made way already, for a new one that never came, is put back.
    """
    pattern = f".{target.name}-{'?' * 12}"
    for old in scratch.glob(f"{pattern}.old"):
        if not target.exists():
            os.rename(old, target)
    for left in [*scratch.glob(f"{pattern}.old"), *scratch.glob(f"{pattern}.new")]:
        shutil.rmtree(left, ignore_errors=True)


class InUseError(OutputError):
    """Another job is writing here at the moment."""


class WriteLock:
    """Keeps a second writer out; the system releases it if the program dies.

    Parameters
    ----------
    path
        A file whose folder exists and is never replaced; it stays when the lock is released.
    shared
        Whether others may hold it as well, if they share it.

    Raises
    ------
    InUseError
        If another job holds it.
    """

    def __init__(self, path: Path, *, shared: bool = False):
        self._file = path.open("a+b")  # also readable: shared locks of network file systems need it
        try:
            _lock(self._file.fileno(), shared)
        except OSError as error:
            self._file.close()
            raise InUseError(
                "Another job is writing this mask at the moment. Wait until it has ended or stop it first."
            ) from error

    def close(self) -> None:
        """Let the next writer in."""
        self._file.close()


def _lock(descriptor: int, shared: bool) -> None:
    if fcntl is not None:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        return
    os.lseek(descriptor, secrets.randbelow(_LOCKED) if shared else 0, os.SEEK_SET)
    msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1 if shared else _LOCKED)  # type: ignore[attr-defined]
