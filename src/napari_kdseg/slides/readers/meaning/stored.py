"""What a file says of its numbers, whichever reader reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

Colours = Literal["rgb", "ycbcr", "cmyk", "lab", "palette", "grey", "other"]

COLOUR_SAMPLES: dict[str, int] = {"rgb": 3, "ycbcr": 3, "lab": 3, "cmyk": 4, "palette": 1}
TITLES = {"ycbcr": "YCbCr", "cmyk": "CMYK", "lab": "CIELab"}
RGB = ("red", "green", "blue")
UNNAMED = re.compile(r"|channel[ :_-]*\d*(:\d+)*|ch?[ _-]?\d+|\d+|image\d*|rgb", re.IGNORECASE)
"""Names that say nothing of what a channel shows."""


@dataclass(frozen=True)
class Stored:
    """What a file says of its numbers.

    Attributes
    ----------
    samples, dtype
        Of every pixel as it is decoded.
    colours
        What the first samples are together; ``"grey"`` also where every one is a channel by itself.
    extra
        Meaning of each further sample as ExtraSamples of TIFF numbers it: 0 unsaid, 1 opacity that the colours are
        multiplied by already, 2 opacity.
    bits
        Stored for every sample; 0: those of the type.
    white
        The largest value, if the file says it.
    names
        Of the channels; empty ones are not said.
    inverted
        Whether 0 is white.
    palette
        ``[3, colours]``, of 16 bits.
    unread
        What is stored, in words, where nothing here can make colours of it.
    pages
        Whether two more pages like this one follow, so that the three may be red, green and blue.
    """

    samples: int
    dtype: np.dtype
    colours: Colours = "grey"
    extra: tuple[int, ...] = ()
    bits: int = 0
    white: float | None = None
    names: tuple[str, ...] = ()
    inverted: bool = False
    palette: np.ndarray | None = None
    unread: str = ""
    pages: bool = False

    @property
    def depth(self) -> int:
        """Bits of every sample."""
        return self.bits or self.dtype.itemsize * 8

    @property
    def top(self) -> float:
        """The largest value that a sample can have; 1 of floating point."""
        if self.dtype.kind == "f":
            return 1.0
        return 2**self.depth - 1 if self.dtype.kind in "ub" else 2 ** (self.depth - 1) - 1

    @property
    def coloured(self) -> int:
        """Number of the samples before the extra ones."""
        return self.samples - len(self.extra)

    @property
    def opacity(self) -> int | None:
        """Index of the sample that is the opacity, if one is."""
        found = [index for index, meaning in enumerate(self.extra) if meaning > 0]
        return self.coloured + found[0] if found else None

    @property
    def named(self) -> bool:
        """Whether the channels have names of what they show, as dyes are."""
        told = any(UNNAMED.fullmatch(name.strip()) is None for name in self.names)
        return told and len(self.names) >= self.coloured and not self.named_rgb

    @property
    def named_rgb(self) -> bool:
        """Whether the channels are called red, green and blue."""
        found = [name.strip().lower() for name in self.names]
        return found in (list(RGB), ["r", "g", "b"])
