"""One annotated tile, a hash that is the same everywhere, and how problems with many files are told."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_kdseg.errors import DataError

SHOWN = 4
"""How many files a sentence names."""


@dataclass(frozen=True)
class Tile:
    """One image with its mask."""

    name: str
    image: Path
    mask: Path
    size: tuple[int, int]
    patient: str | None = None
    split: str | None = None
    class_index: int | None = None
    mpp: float | None = None


def stable_hash(*parts: object) -> int:
    """Hash ``parts`` to 63 bits, the same on every machine and in every process."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def composed(name: str) -> str:
    """Write a name in composed characters (NFC): macOS and its archives hold ``ü`` as ``u`` and two dots (NFD)."""
    return unicodedata.normalize("NFC", name)


def listed(names: Sequence[str], noun: str = "file") -> str:
    """Count files and name the first few: ``"3 masks (a, b, c)"``."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'} ({', '.join(names[:SHOWN])}{more})"


def refuse(names: Sequence[str], sentence: str, noun: str = "file") -> None:
    """Raise a :class:`DataError` about ``names``, if there are any.

    Parameters
    ----------
    names
        What is wrong, one entry a file.
    sentence
        With the fields ``{count}`` ("3 images"), ``{names}`` (the first few), ``{has}``, ``{is_}``, ``{them}``.
    noun
        What is counted.
    """
    if not names:
        return
    one = len(names) == 1
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    raise DataError(
        sentence.format(
            count=f"{len(names)} {noun}" if one else f"{len(names)} {noun}s",
            names=", ".join(names[:SHOWN]) + more,
            has="has" if one else "have",
            is_="is" if one else "are",
            them="it" if one else "them",
        )
    )
