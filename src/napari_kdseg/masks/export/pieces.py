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
        classes = np.array([value for value, _ in outlined])
        means = _mean_probabilities(classes, polygons, mask, probabilities, check)
    scale = np.array(mask.downsample[::-1])
    full = shapely.transform(polygons, lambda xy: xy * scale) if len(polygons) else polygons
    found_pieces = [
        Piece(value, polygon, float(shapely.area(polygon)), float(mean))
        for (value, _), polygon, mean in zip(outlined, full, means, strict=True)
    ]
    return Measured(found_pieces, pixels)


def _mean_probabilities(
    values: np.ndarray,
    polygons: np.ndarray,
    mask: MaskPyramid,
    probabilities: MaskPyramid,
    check: Callable[[], None],
) -> np.ndarray:
    """Mean of the probabilities in each polygon (in pixels of the mask) of the class ``values``, block by block.

    Each connected area of a block lies in one polygon: the one of its class that holds its first pixel. So a polygon
    that spans the slide costs no more than a small one.
    """
    from skimage.measure import label

    shapely.prepare(polygons)
    trees = {value: shapely.STRtree(polygons[values == value]) for value in np.unique(values)}
    numbers = {value: np.flatnonzero(values == value) for value in trees}
    height, width = mask.levels[0].shape
    sums, counts = np.zeros(len(polygons)), np.zeros(len(polygons))
    for y in range(0, height, BLOCK):
        for x in range(0, width, BLOCK):
            check()
            block = np.asarray(mask.levels[0][y : y + BLOCK, x : x + BLOCK])
            stored = np.asarray(probabilities.levels[0][y : y + BLOCK, x : x + BLOCK]).ravel()
            areas, count = label(np.where(block == NOT_COMPUTED, 0, block), connectivity=1, return_num=True)
            areas = areas.ravel()
            known = stored != NOT_COMPUTED
            area_sums = np.bincount(areas[known], stored[known] / (NOT_COMPUTED - 1), minlength=count + 1)
            area_counts = np.bincount(areas[known], minlength=count + 1)
            first = np.zeros(count + 1, np.int64)
            first[areas[::-1]] = np.arange(areas.size - 1, -1, -1)
            rows, columns = np.unravel_index(first, block.shape)
            classes = block.ravel()[first]
            for value, tree in trees.items():
                there = 1 + np.flatnonzero(classes[1:] == value)
                centres = shapely.points(columns[there] + x + 0.5, rows[there] + y + 0.5)
                nth, candidate = tree.query(centres)
                held = shapely.contains(tree.geometries[candidate], centres[nth])
                whose = numbers[value][candidate[held]]
                np.add.at(sums, whose, area_sums[there[nth[held]]])
                np.add.at(counts, whose, area_counts[there[nth[held]]])
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


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
