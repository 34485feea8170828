"""What the numbers in a map of codes mean, in which words and colours: who mended a pixel, and how two masks differ."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from napari_kdseg.colours import (
    BLACK,
    BLUE,
    BLUISH_GREEN,
    ORANGE,
    REDDISH_PURPLE,
    SKY_BLUE,
    VERMILION,
    YELLOW,
    Colour,
)


@dataclass(frozen=True)
class Meaning:
    """What a code means to people: ``name`` in words, and its ``colour``."""

    name: str
    colour: Colour


class MendedBy(IntEnum):
    """Which step of PLC-KD's correction mended the soft label of a pixel."""

    NOBODY = 0
    FALSE_PIXEL_ASSISTANT = 1
    BOUNDARY_ASSISTANT = 2
    SIMILARITY = 3
    FALLBACK = 4
    STILL_WRONG = 5


MENDED_BY = {
    MendedBy.NOBODY: Meaning("right from the start", BLACK),
    MendedBy.FALSE_PIXEL_ASSISTANT: Meaning("false-pixel-aware assistant", SKY_BLUE),
    MendedBy.BOUNDARY_ASSISTANT: Meaning("boundary-aware assistant", BLUISH_GREEN),
    MendedBy.SIMILARITY: Meaning("similarity", REDDISH_PURPLE),
    MendedBy.FALLBACK: Meaning("fallback", YELLOW),
    MendedBy.STILL_WRONG: Meaning("still wrong", VERMILION),
}
"""Where it is 0, nothing is shown."""


class Difference(IntEnum):
    """How teacher and student differ at a pixel."""

    AGREE = 0
    ONLY_TEACHER = 1
    ONLY_STUDENT = 2
    DIFFERENT_CLASS = 3


DIFFERENCES = {
    Difference.AGREE: Meaning("agree", BLACK),
    Difference.ONLY_TEACHER: Meaning("only the teacher", BLUE),
    Difference.ONLY_STUDENT: Meaning("only the student", ORANGE),
    Difference.DIFFERENT_CLASS: Meaning("different class", VERMILION),
}
"""Where both agree, nothing is shown."""
