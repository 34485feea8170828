"""The legend of a picture: which colour stands for what.

On screen the docks say so; a file needs it drawn in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from napari_kdseg.widgets.binding import session_of
from napari_kdseg.widgets.layers import colours
from napari_kdseg.widgets.layers.mask_layers import MASKS_KEY
from napari_kdseg.widgets.layers.overlays import classes_of
from napari_kdseg.widgets.layers.placement import ROLE_KEY

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

Entry = tuple[str, str, bool]  # text, colour, drawn as an outline


def entries(viewer: Viewer) -> list[Entry]:
    """The lines of the legend for the overlays that ``viewer`` shows now."""
    lines: list[Entry] = []
    for layer in viewer.layers:
        role = layer.metadata.get(ROLE_KEY)
        if role is None or not layer.visible:
            continue
        if role in ("teacher", "student"):
            lines += _mask_entries(viewer, role, layer)
        elif role == "mended_by":
            lines += [
                (f"mended by {text}", colour, False) for text, colour in list(colours.MENDED_BY.values())[:4]
            ]
        elif role == "confidence":
            lines += [
                ("corrected: annotated class certain", colours.BLUISH_GREEN, False),
                ("corrected: annotated class doubtful", colours.YELLOW, False),
            ]
        elif role == "change":
            lines += [("mended upward", colours.BLUE, False), ("mended downward", colours.VERMILION, False)]
        elif role == "disagreement":
            lines += [(text, colour, False) for text, colour in colours.DISAGREEMENT.values()]
        elif role == "annotation":
            lines.append(("annotation", colours.BLACK, True))
    return list(dict.fromkeys(lines))


def _mask_entries(viewer: Viewer, role: str, layer: Labels) -> list[Entry]:
    if layer.contour:
        return [(f"{role} mask", colours.SOURCES[role], True)]
    session = session_of(viewer)
    return [
        (name, colour, False)
        for name, colour in classes_of(session).items()
        if name in layer.metadata[MASKS_KEY].classes and name not in session.hidden_classes
    ]


def draw(picture: np.ndarray, lines: list[Entry], *, top: bool = True) -> np.ndarray:
    """Draw the legend into the left upper or lower corner of an RGB(A) picture; return RGB uint8 ``[h, w, 3]``."""
    image = Image.fromarray(np.ascontiguousarray(picture[..., :3]))
    if not lines:
        return np.asarray(image)
    font = ImageFont.load_default(size=15)
    line_height, pad, mark = 24, 12, 16
    width = max(int(font.getlength(text)) for text, _, _ in lines) + mark + 3 * pad
    box = Image.new("RGBA", (width, line_height * len(lines) + pad), (255, 255, 255, 225))
    pen = ImageDraw.Draw(box)
    for index, (text, colour, outlined) in enumerate(lines):
        upper = pad // 2 + index * line_height + (line_height - mark) // 2
        square = (pad, upper, pad + mark, upper + mark)
        if outlined:
            pen.rectangle(square, outline=colour, width=3)
        else:
            pen.rectangle(square, fill=colour)
        pen.text((2 * pad + mark, upper - 2), text, fill="#202020", font=font)
    image.paste(box, (14, 14 if top else image.height - box.height - 14), box)
    return np.asarray(image)
