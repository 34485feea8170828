"""Which stored value is white: said by a person, by the file, by its number of bits, or to be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from napari_kdseg.slides.address import Asked
from napari_kdseg.slides.readers.meaning.stored import TITLES, Stored

Look = Callable[[], Sequence[np.ndarray]]


def white_of(stored: Stored, asked: Asked, look: Look) -> tuple[float, str, str]:
    """Return the value that is white, how that is known, and what has to be asked; all of 8-bit RGB is known.

    16 bits that reach the upper half of their range are taken as full; those that stay below may be 10, 12 or 14 bits
    in a larger type, which only a person can tell where the file does not.
    """
    said = f", {stored.depth} bit" if stored.dtype.kind != "f" else ", floating point"
    if stored.colours == "palette":
        return 255, "", ""
    if asked.white is not None:
        return asked.white, f"{said}, {asked.white:g} is white (you said so)", ""
    if stored.colours in TITLES or stored.depth <= 8 or stored.depth not in (16, 32, 64):
        by = f" / {stored.top / 255:g}" if stored.depth == 16 else f", {stored.top:g} is white"
        return stored.top, f"{said}{by if stored.depth != 8 else ''}", ""
    found = largest(stored, look())
    says_no_more = stored.white is not None and stored.white >= stored.top and found <= stored.top / 2
    if stored.white is not None and found <= stored.white and not says_no_more:
        return stored.white, f"{said}, {stored.white:g} is white (the file says so)", ""
    if stored.dtype.kind == "u" and stored.top / 2 < found:
        return stored.top, f"{said} / {stored.top / 255:g}", ""
    likely = _likely(found, stored)
    doubt = (
        f"the file does not say which value is white; the largest seen is {found:g}, so it may be {likely:g}"
    )
    return likely, said, doubt


def largest(stored: Stored, tiles: Sequence[np.ndarray]) -> float:
    """Return the largest value seen in what is coloured."""
    found = [np.nan_to_num(tile[..., : stored.coloured], posinf=0).max() for tile in tiles]
    return float(max(found, default=stored.top))


def _likely(largest: float, stored: Stored) -> float:
    """Return the largest value of the whole number of bits that holds the largest one seen; 1 of small fractions."""
    if stored.dtype.kind == "f" and largest <= 1:
        return 1.0
    return float(2 ** max(8, int(np.ceil(np.log2(max(largest, 1) + 1)))) - 1)
