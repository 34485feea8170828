"""Polygons as a mask that is computed where it is looked at: no mask of the whole slide is ever in memory.

The class of a pixel is that of the topmost polygon that holds the pixel's centre (rasterio.features, GDAL's rule).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

NUDGE_Y, NUDGE_X = 1e-6, 1.618e-6
"""Level-0 pixels. A centre that lies on a pixel's edge belongs to the pixel below or right of it, as in any mask; and
none lies on a slanting edge between whole corners, where rounding would decide differently from tile to tile."""


class ShapeRaster:
    """Samples classes from polygons; may be used from many threads at once.

    Parameters
    ----------
    geometries
        Polygons and multipolygons, (x, y) in level-0 pixels from the corner of the slide, the lowest first.
    values
        The class of each.
    outside
        The value where there is none.
    """

    def __init__(self, geometries: Sequence[BaseGeometry], values: Sequence[int], outside: int):
        self._polygons, owner = _simple_polygons(np.array(geometries, dtype=object))
        self._values = np.asarray(values, np.uint8)[owner]
        self._bounds = shapely.bounds(self._polygons)
        self._tree = shapely.STRtree(self._polygons)
        self._outside = outside

    def sample(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the class at equally spaced positions, level-0 pixels from the corner of the slide."""
        from rasterio import Affine, features  # GDAL takes a while to load, and most slides have no outlines

        rows, columns = np.asarray(rows, np.float64) + NUDGE_Y, np.asarray(columns, np.float64) + NUDGE_X
        tall, wide = _spacing(rows), _spacing(columns)
        shape = (len(rows), len(columns))
        corner = (columns[0] - wide / 2, rows[0] - tall / 2)
        box = (corner[0] - wide, corner[1] - tall, columns[-1] + 1.5 * wide, rows[-1] + 1.5 * tall)
        near = np.sort(self._tree.query(shapely.box(*box)))
        near = near[self._holds_a_centre(near, corner, (wide, tall))]
        clipped = shapely.clip_by_rect(self._polygons[near], *box)
        pieces, owner = shapely.get_parts(clipped, return_index=True)
        solid = shapely.get_type_id(pieces) == shapely.GeometryType.POLYGON
        burnt = list(zip(pieces[solid], self._values[near][owner[solid]].tolist(), strict=True))
        if not burnt:
            return np.full(shape, self._outside, np.uint8)
        transform = Affine(wide, 0, corner[0], 0, tall, corner[1])
        return features.rasterize(burnt, shape, fill=self._outside, transform=transform, dtype=np.uint8)

    def _holds_a_centre(
        self, near: np.ndarray, corner: tuple[float, float], size: tuple[float, float]
    ) -> np.ndarray:
        """Leave out polygons that slip between the positions, which are most where cells are seen from afar."""
        found = np.ones(len(near), dtype=bool)
        for axis in (0, 1):
            low = (self._bounds[near, axis] - corner[axis]) / size[axis] - 0.5
            high = (self._bounds[near, axis + 2] - corner[axis]) / size[axis] - 0.5
            found &= np.floor(high + 1e-9) >= np.ceil(low - 1e-9)
        return found


def _simple_polygons(geometries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take geometries apart into valid polygons, in their order; return those, and which geometry each was part of."""
    # An outline that crosses itself would be cut wrongly; mended, it covers what an even-odd fill covers.
    crossed = ~shapely.is_valid(geometries)
    geometries[crossed] = shapely.make_valid(geometries[crossed])
    simple = shapely.get_type_id(geometries) == shapely.GeometryType.POLYGON
    parts, inner = shapely.get_parts(geometries[~simple], return_index=True)
    parts, deeper = shapely.get_parts(parts, return_index=True)  # mending may leave collections
    polygons = np.concatenate([geometries[simple], parts])
    owner = np.concatenate([np.flatnonzero(simple), np.flatnonzero(~simple)[inner[deeper]]])
    keep = (shapely.get_type_id(polygons) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(polygons)
    order = np.argsort(owner[keep], kind="stable")
    return polygons[keep][order], owner[keep][order]


def _spacing(positions: np.ndarray) -> float:
    return float((positions[-1] - positions[0]) / (len(positions) - 1)) if len(positions) > 1 else 1.0
