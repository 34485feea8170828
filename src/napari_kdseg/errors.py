"""Failures in plain words: what happened, why, and what to do about it.

Every room raises :class:`KdsegError` where a person can mend the cause; :func:`explain` puts any other exception
into a sentence. The window shows that sentence as a notification, ``kdseg`` prints it and exits with 2.
"""

from __future__ import annotations

import errno
import traceback
from pathlib import Path


class KdsegError(Exception):
    """A failure whose message is written for the person at the screen, in one to three sentences."""


class SlideError(KdsegError):
    """A slide or an annotation that cannot be opened or read."""


class CheckpointError(KdsegError):
    """A checkpoint that cannot be loaded, or does not fit the network it is loaded into."""


class WeightsOnlyError(CheckpointError):
    """Good weights in a file that does not say which network they belong to."""


class DataError(KdsegError):
    """Training data that is missing, unpaired or inconsistent."""


class ConfigurationError(KdsegError):
    """Settings that contradict each other or the data."""


class CodeNotAllowedError(ConfigurationError):
    """Somebody's own code would have to be run, and the person has not allowed it.

    Attributes
    ----------
    code
        Import path of what would be run, such as ``mypackage.models:MyNet``.
    """

    def __init__(self, message: str, code: str):
        super().__init__(message)
        self.code = code


class OutputError(KdsegError):
    """A place that cannot be written to, or already holds something else."""


class InTheWayError(OutputError):
    """Something good is where a result should go; it is replaced only if a person says so."""


def explain(error: BaseException) -> str:
    """Say in plain words what went wrong and what to do.

    Parameters
    ----------
    error
        Any exception. A :class:`KdsegError` already is its own explanation.

    Returns
    -------
    str
        One to three sentences.
    """
    if isinstance(error, KdsegError):
        return str(error)
    if is_out_of_memory(error):
        return (
            "There was not enough memory for this step. Use a smaller batch size or tile, a smaller network, "
            "or the CPU; what was computed so far is kept."
        )
    if isinstance(error, OSError):
        return _explain_os_error(error)
    if type(error).__name__ == "ValidationError" and hasattr(error, "errors"):
        return _explain_validation(error)
    return _unforeseen(error)


def _unforeseen(error: BaseException) -> str:
    """Say that nobody thought of this, with what whoever mends it needs to know."""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return (
        f"Nobody foresaw this: {what}{where}. It is a fault of this program; please report it with this text."
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether ``error`` is an out-of-memory error of Python, of CUDA or of torch's CPU allocator."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


def _explain_os_error(error: OSError) -> str:
    place = f" ({error.filename})" if error.filename else ""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return f"The disk is full{place}. Free some space or choose another folder, then resume."
        case errno.EROFS | errno.EACCES | errno.EPERM:
            return f"This place cannot be written to or read{place}. Choose a folder you own."
        case errno.ENOENT:
            return f"This file or folder does not exist{place}."
    return f"The file system reported: {error}"


def _explain_validation(error: BaseException) -> str:
    problems = []
    for item in error.errors():  # type: ignore[attr-defined]
        field = ".".join(str(part) for part in item["loc"]) or "settings"
        problems.append(f"{field}: {item['msg'].removeprefix('Value error, ')}")
    return "These settings do not work. " + "; ".join(problems) + "."
