"""A mask becomes polygons whose outlines run along the edges of pixels, so that rasterising them gives the mask back.

Outlines through the centres of pixels (contour tracing) lose half a pixel all around, and thin structures wholly. Here
the mask is read tile by tile, and polygons that a tile's edge cuts are joined in the end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator

import numpy as np
import shapely

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.annotations.annotation import Annotation
from napari_kdseg.slides.annotations.classes import NOT_ANNOTATED
from napari_kdseg.slides.annotations.model import MAX_VERTICES, AnnotationShape
from napari_kdseg.slides.geometry import Pair
from napari_kdseg.slides.pixels.level_array import ReadRegion

TILE = 2048


def annotation_to_shapes(
    annotation: Annotation,
    *,
    tile: int = TILE,
    check: Callable[[], None] = lambda: None,
) -> list[AnnotationShape]:
    """Outline every connected area of every class of a mask.

    Areas of background are outlined too where a part of the mask is not annotated: background and not annotated are
    different things. Otherwise what no shape covers is background.

    Parameters
    ----------
    annotation
        The mask; its finest level is outlined.
    tile
        Side of the blocks that are read at once.
    check
        Called before every block; an exception it raises stops the work.

    Returns
    -------
    list of AnnotationShape
        Polygons in level-0 pixels of the slide, by class and then from top to bottom.

    Raises
    ------
    SlideError
        If the outlines have more corners than can be held.
    """
    level = annotation.pyramid[0]

    def read(y: int, x: int, height: int, width: int) -> np.ndarray:
        return annotation.read_scaled(level.downsample, y, x, height, width)

    found = outline(read, level.shape, level.downsample, skip=(NOT_ANNOTATED,), tile=tile, check=check)
    wanted = sorted(found.values - {NOT_ANNOTATED} - (set() if NOT_ANNOTATED in found.values else {0}))
    shapes = []
    for value in wanted:
        name = annotation.classes[value] if value < len(annotation.classes) else f"class {value}"
        colour = annotation.colours[value] if value < len(annotation.colours) else None
        shapes += [AnnotationShape(polygon, name, colour) for polygon in found.polygons(value)]
    return shapes


def outline(
    read: ReadRegion,
    shape: tuple[int, int],
    downsample: Pair,
    *,
    skip: Collection[int] = (),
    tile: int = TILE,
    check: Callable[[], None] = lambda: None,
) -> Outlines:
    """Outline the 4-connected areas of equal value of a mask, tile by tile.

    Parameters
    ----------
    read
        ``read(y, x, height, width) -> uint8 or int32 [height, width]``.
    shape
        Of the mask, (height, width).
    downsample
        Width of its pixels in level-0 pixels, (y, x).
    skip
        Values that are not outlined.
    tile, check
        As for :func:`annotation_to_shapes`.

    Raises
    ------
    SlideError
        If the outlines have more corners than can be held.
    """
    found = Outlines(shape, downsample)
    for y in range(0, shape[0], tile):
        for x in range(0, shape[1], tile):
            check()
            height, width = min(tile, shape[0] - y), min(tile, shape[1] - x)
            block = read(y, x, height, width)
            there = _values(block)
            found.values |= there
            if not there <= set(skip):
                for value, polygon in _outline_block(block, y, x, skip):
                    found.add(value, polygon, (x, y, x + width, y + height))
    return found


class Outlines:
    """The outlines of a mask: those that lie in one tile, and those that are still cut by a tile's edge.

    Attributes
    ----------
    values
        All values of the mask, also those that were not outlined.
    """

    def __init__(self, shape: tuple[int, int], downsample: Pair):
        self.values: set[int] = set()
        self._shape = shape
        self._scale = np.array([downsample[1], downsample[0]])
        self._whole: dict[int, list[shapely.Polygon]] = defaultdict(list)
        self._cut: dict[int, list[shapely.Polygon]] = defaultdict(list)
        self._corners: dict[bool, int] = defaultdict(int)

    def add(self, value: int, polygon: shapely.Polygon, box: tuple[int, int, int, int]) -> None:
        """Add one polygon, in pixels of the mask, of the tile that covers ``box`` (left, top, right, bottom).

        Raises
        ------
        SlideError
            If there are more corners than can be held; background, which is often not wanted, is counted apart.
        """
        self._corners[value == 0] += shapely.get_num_coordinates(polygon)
        if self._corners[value == 0] > MAX_VERTICES:
            raise SlideError(
                f"The outlines of this mask have more than {MAX_VERTICES:,} corners. Smooth the mask, or take a "
                "coarser one."
            )
        left, top, right, bottom = polygon.bounds
        inside = (
            (left > box[0] or box[0] == 0)
            and (top > box[1] or box[1] == 0)
            and (right < box[2] or box[2] == self._shape[1])
            and (bottom < box[3] or box[3] == self._shape[0])
        )
        (self._whole if inside else self._cut)[value].append(polygon)

    def polygons(self, value: int) -> list[shapely.Polygon]:
        """Return the polygons of one value, joined over tile edges, in level-0 pixels, from top to bottom."""
        cut = self._cut[value]
        # joining leaves corners in the middle of straight edges
        joined = shapely.get_parts(shapely.simplify(shapely.unary_union(cut), 0)) if cut else []
        polygons = [*self._whole[value], *joined]
        polygons.sort(key=lambda polygon: (polygon.bounds[1], polygon.bounds[0]))
        if (self._scale == 1).all() or not polygons:
            return polygons
        return list(shapely.transform(np.array(polygons, dtype=object), lambda xy: xy * self._scale))


def _values(block: np.ndarray) -> set[int]:
    first = int(block[0, 0])
    return {first} if (block == first).all() else set(np.unique(block).tolist())


def _outline_block(
    block: np.ndarray, y: int, x: int, skip: Collection[int]
) -> Iterator[tuple[int, shapely.Polygon]]:
    """Outline one block; a block of one value, as most are, is its own outline."""
    height, width = block.shape
    if len(_values(block)) == 1:
        yield int(block[0, 0]), shapely.box(x, y, x + width, y + height)
        return
    from rasterio import Affine, features  # GDAL takes a while to load

    wanted = None if not skip else ~np.isin(block, list(skip))
    for item, value in features.shapes(block, wanted, connectivity=4, transform=Affine.translation(x, y)):
        outer, *holes = item["coordinates"]
        yield int(value), shapely.Polygon(outer, holes)
