"""Equal crops of a region: the slide alone, then each mask over it. All are the same square of the slide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from napari_kdseg import colours as okabe_ito
from napari_kdseg.colours import Colour, from_hex
from napari_kdseg.comparison.regions.table import Compared, Region
from napari_kdseg.slides import Slide
from napari_kdseg.slides.views.overview import as_picture
from napari_kdseg.widgets.layers.colours import SOURCES, class_colour

Pair = tuple[float, float]

SIDE = 256
"""Pixels of a side of every crop."""
MARGIN = 1.6
"""Side of the crop against that of the region."""
SMALLEST_UM, SMALLEST_PX = 80.0, 256.0
"""Shortest side on the slide, in micrometres or in pixels without a scale: a speck alone says nothing."""
FILL = 0.25
"""How much of the colour of a class lies on the slide."""
NOT_COMPUTED = 255


class Scaled(Protocol):
    """A mask that is read at any downsample: a :class:`~napari_kdseg.masks.MaskPyramid` or an annotation."""

    def read_scaled(self, downsample: Pair, y: int, x: int, height: int, width: int, /) -> np.ndarray:
        """Return classes, uint8, of a block of an imaginary level."""
        ...


@dataclass(frozen=True)
class MaskPanel:
    """A mask in the gallery.

    Attributes
    ----------
    title
        Its name.
    mask
        Where its classes are read.
    colour
        Of its outline: the source.
    class_colours
        Of its classes, background first; Okabe and Ito's where there are none.
    """

    title: str
    mask: Scaled
    colour: Colour
    class_colours: tuple[Colour, ...] = ()


@dataclass(frozen=True)
class Square:
    """A square of the slide as ``SIDE x SIDE`` pixels of an imaginary level.

    Attributes
    ----------
    downsample
        Of the level, ``(y, x)`` against level 0.
    y, x
        Its first pixel.
    side_um
        Its side; ``None`` without a scale.
    """

    downsample: Pair
    y: int
    x: int
    side_um: float | None


def panels(masks: Mapping[str, Scaled], about: Compared) -> tuple[MaskPanel, ...]:
    """Return masks by their titles as panels: the first compared one blue, the second orange, others purple."""
    first, second = from_hex(SOURCES["teacher"]), from_hex(SOURCES["student"])
    named = {about.first: first, about.second: second}
    return tuple(
        MaskPanel(
            title, mask, named.get(title, okabe_ito.REDDISH_PURPLE), tuple(getattr(mask, "colours", ()))
        )
        for title, mask in masks.items()
    )


def square_around(region: Region, mpp: Pair | None) -> Square:
    """Return the square of the slide with a region in its middle and some of what is around it."""
    y, x, height, width = region.box
    across = mpp or (1.0, 1.0)
    least = SMALLEST_PX if mpp is None else SMALLEST_UM
    side = max(MARGIN * max(height * across[0], width * across[1]), least)
    downsample = (side / across[0] / SIDE, side / across[1] / SIDE)
    top = round((y + height / 2) / downsample[0] - SIDE / 2)
    left = round((x + width / 2) / downsample[1] - SIDE / 2)
    return Square(downsample, top, left, None if mpp is None else side)


def crops(slide: Slide, masks: Sequence[MaskPanel], region: Region) -> np.ndarray:
    """Read the crops of a region, side by side. Waits for pixels: not for the GUI thread.

    Returns
    -------
    numpy.ndarray
        uint8 ``[SIDE, (1 + len(masks)) * SIDE, 3]``: the slide, then each mask over it.
    """
    square = square_around(region, slide.mpp)
    place = (square.downsample, square.y, square.x, SIDE, SIDE)
    bare = as_picture(slide, slide.read_scaled(*place))
    return np.concatenate(
        [bare, *(draw(bare, mask.mask.read_scaled(*place), mask) for mask in masks)], axis=1
    )


def draw(pixels: np.ndarray, classes: np.ndarray, panel: MaskPanel) -> np.ndarray:
    """Return pixels with a mask on them: a breath of the colours of its classes, outlined in that of its source."""
    classes = np.where(classes == NOT_COMPUTED, 0, classes)
    count = int(classes.max()) + 1
    table = np.array([from_hex(class_colour(index, panel.class_colours)) for index in range(count)])
    out = np.where((classes > 0)[..., None], (1 - FILL) * pixels + FILL * table[classes], pixels)
    out[outline(classes)] = panel.colour
    return np.rint(out).astype(np.uint8)


def outline(classes: np.ndarray) -> np.ndarray:
    """Return the three pixels wide border between what a mask tells apart; the edge of the crop is none."""
    padded = np.pad(classes, 1, mode="edge")
    height, width = classes.shape
    around = [padded[dy : dy + height, dx : dx + width] for dy in range(3) for dx in range(3)]
    edge = (classes > 0) & np.any([other != classes for other in around], axis=0)
    padded_edge = np.pad(edge, 1)
    return np.any(
        [padded_edge[dy : dy + height, dx : dx + width] for dy in range(3) for dx in range(3)], axis=0
    )
