"""Why a slide cannot be read, in one of three sentences: it is damaged, it is not supported, or it is a fault of ours.

Whoever reads raises :class:`DamagedError` or :class:`NotSupportedError` with words that complete "because"; what
parsers and codecs raise is put into such words here. No text of a library or of Python reaches a person, but for a
fault of ours, which is to be reported with it.
"""

from __future__ import annotations

import struct
import traceback
from pathlib import Path

import openslide
import tifffile

from napari_kdseg.errors import KdsegError, SlideError, explain, is_out_of_memory

PACKAGE = Path(__file__).parents[2]
OF_LIBRARIES = (EOFError, struct.error, tifffile.TiffFileError, openslide.OpenSlideError)
OTHER_PROGRAM = (
    "Save it in another way with the program that wrote it, such as a tiled TIFF with JPEG, LZW or deflate."
)


class DamagedError(ValueError):
    """Something of the file is missing or contradicts the rest; the text says what, as in "it ends too early"."""


class NotSupportedError(ValueError):
    """The file is whole, but this is not read here.

    Parameters
    ----------
    what
        Is not read, as in "it has 65 channels".
    instead
        What a person can do, a sentence.
    """

    def __init__(self, what: str, instead: str = OTHER_PROGRAM):
        super().__init__(what)
        self.instead = instead


def damaged(path: Path, what: object) -> SlideError:
    """Say that a file is damaged, and how."""
    return SlideError(f"{path.name} is truncated or damaged: {what}. Copy it again from where it came from.")


def not_supported(path: Path, what: object, instead: str = OTHER_PROGRAM) -> SlideError:
    """Say that a file is whole but of a kind that is not read, and what to do."""
    return SlideError(f"{path.name} is not damaged, but it cannot be read here: {what}. {instead}")


def refusal(path: Path, error: Exception) -> SlideError:
    """Say why a file could not be opened.

    Parameters
    ----------
    path
        Of the file.
    error
        Whatever its reader raised.
    """
    if isinstance(error, SlideError):
        return error
    if isinstance(error, NotSupportedError):
        return not_supported(path, error, error.instead)
    if isinstance(error, DamagedError):
        return damaged(path, error)
    if is_out_of_memory(error) or isinstance(error, OSError) or is_ours(error):
        return SlideError(f"{path.name} could not be read. {explain(error)}")
    reason = of_a_library(error).replace(str(path), path.name)
    if isinstance(error, openslide.OpenSlideError) and "nsupported" in reason:
        return not_supported(path, reason)
    return damaged(path, reason)


def reason_of_tile(error: Exception) -> str:
    """Say why a tile could not be decoded, in words that complete "because"."""
    if isinstance(error, (DamagedError, NotSupportedError, KdsegError, EOFError)) and str(error):
        return str(error)
    if isinstance(error, OSError) or is_ours(error):
        return explain(error).removesuffix(".")
    return of_a_library(error)


def of_a_library(error: Exception) -> str:
    """Put what a parser or a codec raised into words that complete "because"."""
    if isinstance(error, openslide.OpenSlideError):
        return f"OpenSlide says of it: {error}"  # written for people
    if isinstance(error, (EOFError, struct.error)):
        return "it ends too early"
    if isinstance(error, tifffile.TiffFileError):
        return "its headers are broken"
    module = type(error).__module__
    if module.startswith("imagecodecs"):
        codec = type(error).__name__.removesuffix("Error").rstrip("0123456789k").upper()
        return f"its {codec} data are broken"
    return "its headers contradict each other"


def is_ours(error: BaseException) -> bool:
    """Tell whether an exception that nobody meant to raise comes from this program rather than from a library."""
    if isinstance(error, OF_LIBRARIES) or type(error).__module__.startswith("imagecodecs"):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(PACKAGE)
