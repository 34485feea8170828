"""Holes for formats that know only simple outlines: a hole is drawn as an outline of its own and cut out here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from napari_kdseg.slides.annotations.model import rings_of


def cut_holes(areas: Sequence[BaseGeometry], holes: Sequence[BaseGeometry]) -> list[BaseGeometry]:
    """Cut holes out of polygons.

    A hole belongs to the smallest polygon that holds all of it, so an island in a hole stays. One that reaches over the
    edge of every polygon is taken away from all that it overlaps.

    Parameters
    ----------
    areas
        Polygons; lines and points among them are left alone.
    holes
        Polygons that are cut out; others are no holes.

    Returns
    -------
    list of geometry
        One for each of ``areas``; where holes lie wholly inside, their corners are kept as they are.
    """
    mended = shapely.make_valid(np.array(areas, dtype=object))
    has_area = [area.geom_type in ("Polygon", "MultiPolygon") for area in areas]
    tree = shapely.STRtree(mended)
    inside: dict[int, list[BaseGeometry]] = defaultdict(list)
    across: dict[int, list[BaseGeometry]] = defaultdict(list)
    for hole in holes:
        if hole.geom_type != "Polygon":
            continue
        touched = [int(i) for i in tree.query(hole, predicate="intersects") if has_area[i]]
        around = [i for i in touched if mended[i].covers(hole)]
        if around:
            inside[min(around, key=lambda i: areas[i].area)].append(hole)
        else:
            for index in touched:
                across[index].append(hole)
    result = list(areas)
    for index, found in inside.items():
        result[index] = _with_holes(result[index], found)
    for index, found in across.items():
        result[index] = _difference(result[index], found)
    return result


def _with_holes(area: BaseGeometry, holes: Sequence[BaseGeometry]) -> BaseGeometry:
    if area.geom_type == "Polygon":
        outline, *inner = rings_of(area)
        cut = shapely.Polygon(outline, [*inner, *(rings_of(hole)[0] for hole in holes)])
        if cut.is_valid:
            return cut
    return _difference(area, holes)


def _difference(area: BaseGeometry, holes: Sequence[BaseGeometry]) -> BaseGeometry:
    rest = shapely.difference(shapely.make_valid(area), shapely.union_all(shapely.make_valid(list(holes))))
    # mending an outline that crosses itself may leave lines beside the polygons
    parts = shapely.get_parts(shapely.get_parts(rest))
    polygons = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    return polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(list(polygons))
