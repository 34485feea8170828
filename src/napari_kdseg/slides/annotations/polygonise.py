"""A mask becomes polygons whose outlines run along the edges of pixels, so that rasterising them gives the mask back.

Outlines through the centres of pixels (contour tracing) lose half a pixel all around, and thin structures wholly. Here
the mask is read tile by tile, and polygons that a tile's edge cuts are joined in the end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
import shapely

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.annotations.classes import NOT_ANNOTATED
from napari_kdseg.slides.annotations.mask import Annotation
from napari_kdseg.slides.annotations.model import MAX_VERTICES, AnnotationShape
from napari_kdseg.slides.geometry import Pair
from napari_kdseg.slides.level_array import ReadRegion

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

    found = outline(read, level.shape, level.downsample, tile=tile, check=check)
    complete = found.pop(NOT_ANNOTATED, None) is None
    shapes = []
    for value in sorted(found):
        if value == 0 and complete:
            continue
        name = annotation.classes[value] if value < len(annotation.classes) else f"class {value}"
        colour = annotation.colours[value] if value < len(annotation.colours) else None
        shapes += [AnnotationShape(polygon, name, colour) for polygon in found[value]]
    return shapes


def outline(
    read: ReadRegion,
    shape: tuple[int, int],
    downsample: Pair,
    *,
    tile: int = TILE,
    check: Callable[[], None] = lambda: None,
) -> dict[int, list[shapely.Polygon]]:
    """Outline the 4-connected areas of equal value of a mask, tile by tile.

    Parameters
    ----------
    read
        ``read(y, x, height, width) -> uint8 [height, width]``.
    shape
        Of the mask, (height, width).
    downsample
        Width of its pixels in level-0 pixels, (y, x).
    tile, check
        As for :func:`annotation_to_shapes`.

    Returns
    -------
    dict
        Polygons by value, in level-0 pixels from the corner, from top to bottom.
    """
    whole: dict[int, list[shapely.Polygon]] = defaultdict(list)
    cut: dict[int, list[shapely.Polygon]] = defaultdict(list)
    corners = 0
    for y in range(0, shape[0], tile):
        for x in range(0, shape[1], tile):
            check()
            height, width = min(tile, shape[0] - y), min(tile, shape[1] - x)
            for value, polygon in _outline_block(read(y, x, height, width), y, x):
                corners += shapely.get_num_coordinates(polygon)
                if corners > MAX_VERTICES:
                    raise SlideError(
                        f"The outlines of this mask have more than {MAX_VERTICES:,} corners. Smooth the mask, or take "
                        "a coarser one."
                    )
                edges = polygon.bounds
                inside = (
                    (edges[0] > x or x == 0)
                    and (edges[1] > y or y == 0)
                    and (edges[2] < x + width or x + width == shape[1])
                    and (edges[3] < y + height or y + height == shape[0])
                )
                (whole if inside else cut)[value].append(polygon)
    scale = np.array([downsample[1], downsample[0]])
    return {value: _joined(whole[value], cut[value], scale) for value in whole.keys() | cut.keys()}


def _outline_block(block: np.ndarray, y: int, x: int) -> Iterator[tuple[int, shapely.Polygon]]:
    """Outline one block; a block of one value, as most are, is its own outline."""
    height, width = block.shape
    if (block == block[0, 0]).all():
        yield int(block[0, 0]), shapely.box(x, y, x + width, y + height)
        return
    from rasterio import Affine, features  # GDAL takes a while to load

    for item, value in features.shapes(block, connectivity=4, transform=Affine.translation(x, y)):
        outer, *holes = item["coordinates"]
        yield int(value), shapely.Polygon(outer, holes)


def _joined(
    whole: list[shapely.Polygon], cut: list[shapely.Polygon], scale: np.ndarray
) -> list[shapely.Polygon]:
    """Join what tiles cut, and drop the corners that this leaves in the middle of straight edges."""
    joined = shapely.get_parts(shapely.simplify(shapely.unary_union(cut), 0)) if cut else []
    polygons = [*whole, *joined]
    polygons.sort(key=lambda polygon: (polygon.bounds[1], polygon.bounds[0]))
    if (scale == 1).all():
        return polygons
    return list(shapely.transform(np.array(polygons, dtype=object), lambda xy: xy * scale))
