"""The connected areas of a mask: their outlines along pixel edges, their size, and how sure the network was of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import shapely

from napari_kdseg.jobs import Control, Emit, Step
from napari_kdseg.masks.pyramid import MaskPyramid
from napari_kdseg.masks.reduction import NOT_COMPUTED
from napari_kdseg.slides import AnnotationShape
from napari_kdseg.slides.annotations.polygonise import outline

BLOCK = 2048
STAGE = "export"


@dataclass(frozen=True)
class Piece:
    """One connected area of a class.

    Attributes
    ----------
    value
        The class.
    polygon
        Its outline along pixel edges, (x, y) in level-0 pixels.
    area
        In level-0 pixels.
    probability
        Mean probability of the class in it; NaN where none was kept.
    """

    value: int
    polygon: shapely.Polygon
    area: float
    probability: float


@dataclass(frozen=True)
class Measured:
    """A mask, measured.

    Attributes
    ----------
    pieces
        Its connected areas, without background.
    pixels
        How many pixels of the mask have each value, int64 ``[256]``; the last is *not computed*.
    """

    pieces: list[Piece]
    pixels: np.ndarray


def measure(mask: MaskPyramid, probabilities: MaskPyramid | None, emit: Emit, control: Control) -> Measured:
    """Outline and measure the connected areas of every class but background, by class, then from top to bottom.

    Parameters
    ----------
    mask, probabilities
        Classes, and the probability of each on the same grid, if it was kept.
    emit, control
        Progress, pause and cancel.

    Raises
    ------
    SlideError
        If the outlines have more corners than can be held.
    """
    level = mask.levels[0]
    blocks = itertools.count()
    total = math.prod(math.ceil(side / BLOCK) for side in level.shape)
    rounds = 1 if probabilities is None else 2

    def check() -> None:
        control.check()
        emit(Step(STAGE, next(blocks), rounds * total))

    def read(y: int, x: int, height: int, width: int) -> np.ndarray:
        block = np.asarray(level[y : y + height, x : x + width])
        np.add(pixels, np.bincount(block.ravel(), minlength=pixels.size), out=pixels)
        return block

    pixels = np.zeros(256, np.int64)
    shape = (level.shape[0], level.shape[1])
    found = outline(read, shape, (1.0, 1.0), skip=(0, NOT_COMPUTED), tile=BLOCK, check=check)
    values = sorted(found.values - {0, NOT_COMPUTED})
    outlined = [(value, polygon) for value in values for polygon in found.polygons(value)]
    polygons = np.array([polygon for _, polygon in outlined], dtype=object)
    means = np.full(len(polygons), np.nan)
    if probabilities is not None and len(polygons):
        means = _mean_probabilities(polygons, probabilities, shape, check)
    scale = np.array(mask.downsample[::-1])
    full = shapely.transform(polygons, lambda xy: xy * scale) if len(polygons) else polygons
    found_pieces = [
        Piece(value, polygon, float(shapely.area(polygon)), float(mean))
        for (value, _), polygon, mean in zip(outlined, full, means, strict=True)
    ]
    return Measured(found_pieces, pixels)


def _mean_probabilities(
    polygons: np.ndarray, probabilities: MaskPyramid, shape: tuple[int, int], check: Callable[[], None]
) -> np.ndarray:
    """Mean of the probabilities in each polygon (in pixels of the mask), block by block."""
    from rasterio import Affine, features  # GDAL takes a while to load

    tree = shapely.STRtree(polygons)
    sums, counts = np.zeros(len(polygons) + 1), np.zeros(len(polygons) + 1)
    for y in range(0, shape[0], BLOCK):
        for x in range(0, shape[1], BLOCK):
            check()
            height, width = min(BLOCK, shape[0] - y), min(BLOCK, shape[1] - x)
            there = tree.query(shapely.box(x, y, x + width, y + height))
            if not len(there):
                continue
            whose = features.rasterize(
                ((polygons[index], index + 1) for index in there),
                out_shape=(height, width),
                transform=Affine.translation(x, y),
                dtype=np.int32,
            )
            values = np.asarray(probabilities.levels[0][y : y + height, x : x + width])
            known = values != NOT_COMPUTED
            sums += np.bincount(whose[known], values[known] / (NOT_COMPUTED - 1), minlength=len(sums))
            counts += np.bincount(whose[known], minlength=len(sums))
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)[1:]


def as_shape(piece: Piece, mask: MaskPyramid, object_type: str) -> AnnotationShape:
    """Return a piece as QuPath shows it: class, colour, and measurements in the words of QuPath."""
    measurements = {}
    if mask.mpp is not None:
        measurements["Area µm^2"] = round(piece.area * mask.mpp[0] * mask.mpp[1], 3)
    if not math.isnan(piece.probability):
        measurements["Mean probability"] = round(piece.probability, 4)
    return AnnotationShape(
        piece.polygon,
        class_name(piece.value, mask),
        mask.colours[piece.value] if piece.value < len(mask.colours) else None,
        object_type=object_type,
        extra={"properties": {"measurements": measurements}} if measurements else {},
    )


def class_name(value: int, mask: MaskPyramid) -> str:
    """Return the name of a class, also of one that the mask does not name."""
    return mask.classes[value] if value < len(mask.classes) else f"class {value}"
