"""Colours of layers as napari takes them.

Fill shows the class; outline, pane title and legend show the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.utils.colormaps import Colormap, DirectLabelColormap

from napari_kdseg import codes
from napari_kdseg import colours as okabe_ito
from napari_kdseg.colours import as_hex

ORANGE, SKY_BLUE, BLUISH_GREEN, YELLOW, BLUE, VERMILION, REDDISH_PURPLE, BLACK = (
    as_hex(colour)
    for colour in (
        okabe_ito.ORANGE,
        okabe_ito.SKY_BLUE,
        okabe_ito.BLUISH_GREEN,
        okabe_ito.YELLOW,
        okabe_ito.BLUE,
        okabe_ito.VERMILION,
        okabe_ito.REDDISH_PURPLE,
        okabe_ito.BLACK,
    )
)
DISAGREEMENT, MENDED_BY = (
    {int(code): (meaning.name, as_hex(meaning.colour)) for code, meaning in table.items() if code}
    for table in (codes.DIFFERENCES, codes.MENDED_BY)
)
"""Words and colours by code, without what is not shown."""

SOURCES = {"teacher": BLUE, "corrected": BLUISH_GREEN, "student": ORANGE, "disagreement": VERMILION}


def class_colour(index: int, colours: Sequence[Any] | None = None) -> str:
    """Colour of class ``index`` (1 is the first that is not background): the checkpoint's, else Okabe-Ito.

    ``colours`` are ``"#rrggbb"`` or ``(r, g, b)`` of 0..255, one a class.
    """
    if colours and index < len(colours):
        given = colours[index]
        return given if isinstance(given, str) else as_hex(given)
    return as_hex(okabe_ito.class_colour(index))


def readable_on(colour: str) -> str:
    """Black or white, whichever stands out more from ``"#rrggbb"`` (relative luminance, WCAG 2.1)."""
    linear = np.array(okabe_ito.from_hex(colour)) / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    return "black" if linear @ (0.2126, 0.7152, 0.0722) > 0.179 else "white"


def label_colormap(colours: dict[int, str]) -> DirectLabelColormap:
    """Colours by label; every other value (background, 255 = not computed) is transparent."""
    table: dict[int | None, str] = {None: "transparent", 0: "transparent"}
    table |= dict(colours.items())
    return DirectLabelColormap(color_dict=table)


def _rgba(colour: okabe_ito.Colour, opacity: float) -> tuple[float, float, float, float]:
    red, green, blue = (channel / 255 for channel in colour)
    return red, green, blue, opacity


def confidence_colormap() -> Colormap:
    """Probability of the annotated class: 0 dark vermilion, 1 bluish green, translucent."""
    stops = [
        (0.5, 0.18, 0.0, 0.85),  # darker than vermilion
        _rgba(okabe_ito.VERMILION, 0.75),
        _rgba(okabe_ito.YELLOW, 0.6),
        _rgba(okabe_ito.BLUISH_GREEN, 0.35),
    ]
    return Colormap(
        np.array(stops), controls=[0.0, 0.35, 0.65, 1.0], name="kdseg confidence", nan_color="transparent"
    )


def change_colormap() -> Colormap:
    """Change of that probability: -1 vermilion, 0 transparent, +1 blue."""
    less, more = okabe_ito.VERMILION, okabe_ito.BLUE
    stops = [_rgba(less, 0.9), _rgba(less, 0.0), _rgba(more, 0.0), _rgba(more, 0.9)]
    return Colormap(
        np.array(stops), controls=[0.0, 0.499, 0.501, 1.0], name="kdseg change", nan_color="transparent"
    )
