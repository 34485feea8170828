"""One set of colours for every view and file: Okabe and Ito's (2008), which colour-blind people can tell apart."""

from __future__ import annotations

Colour = tuple[int, int, int]

BLACK: Colour = (0, 0, 0)
ORANGE: Colour = (230, 159, 0)
SKY_BLUE: Colour = (86, 180, 233)
BLUISH_GREEN: Colour = (0, 158, 115)
YELLOW: Colour = (240, 228, 66)
BLUE: Colour = (0, 114, 178)
VERMILION: Colour = (213, 94, 0)
REDDISH_PURPLE: Colour = (204, 121, 167)

CLASSES = (BLUISH_GREEN, ORANGE, SKY_BLUE, REDDISH_PURPLE, YELLOW, BLUE, VERMILION)
"""Of classes that bring none, the first foreground class first."""


def class_colour(index: int) -> Colour:
    """Return the colour of class ``index`` where nothing else gives it one; 1 is the first foreground class."""
    return CLASSES[(index - 1) % len(CLASSES)]


def as_hex(colour: Colour) -> str:
    """Return ``"#rrggbb"``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def from_hex(text: str) -> Colour:
    """Return ``(r, g, b)`` of ``"#rrggbb"``."""
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
