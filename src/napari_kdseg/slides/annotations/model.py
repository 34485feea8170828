"""One annotation, whatever program drew it.

Coordinates are those of QuPath, ASAP and ImageScope: (x, y) in level-0 pixels counted from the corner of the slide, so
the outline of pixel 0 runs from 0 to 1. Napari counts from pixel centres: ``geometry.corner_transform`` is the bridge.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import shapely
from shapely.geometry import mapping
from shapely.geometry import shape as make_geometry
from shapely.geometry.base import BaseGeometry

from napari_kdseg.errors import SlideError

Colour = tuple[int, int, int]
PLACED = ("Polygon", "MultiPolygon", "LineString", "MultiLineString", "Point", "MultiPoint")
"""Types of what lies somewhere."""

MAX_VERTICES = 10_000_000
"""More corners than this are refused: outlines of whole slides have thousands, all cells of a slide a few million."""


class Outlines(list["AnnotationShape"]):
    """The annotations of a file, and what was decided on reading it.

    Attributes
    ----------
    notes
        Sentences for people: where classes were found, what was left out, from where the file counts.
    """

    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnnotationShape:
    """One annotation of a slide.

    Attributes
    ----------
    geometry
        A shapely ``Polygon`` or ``MultiPolygon``, (x, y) in level-0 pixels from the corner of the slide. Lines and
        points are kept too, but have no area: they are in no mask.
    class_name
        What it shows; ``None`` if nobody said.
    colour
        Of the class, (r, g, b) in 0..255.
    name
        Of this one annotation.
    object_type
        QuPath's word: ``"annotation"``, ``"detection"``, ``"cell"``, ``"tile"``, ``"tmaCore"``.
    locked
        QuPath does not let it be changed by accident.
    identifier
        Its UUID in QuPath.
    extra
        Everything else a GeoJSON feature said, kept so that writing it gives it back: further members of the
        ``"feature"``, of its ``"geometry"`` and of its ``"properties"``.
    """

    geometry: BaseGeometry
    class_name: str | None = None
    colour: Colour | None = None
    name: str | None = None
    object_type: str = "annotation"
    locked: bool = False
    identifier: str | None = None
    extra: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def has_area(self) -> bool:
        """Whether it is a polygon or several."""
        return self.geometry.geom_type in ("Polygon", "MultiPolygon")

    @property
    def polygons(self) -> list[shapely.Polygon]:
        """Its polygons; none for lines and points."""
        return list(shapely.get_parts(self.geometry)) if self.has_area else []


def rings_of(polygon: shapely.Polygon) -> list[np.ndarray]:
    """Return the closed rings of a polygon, its outline first and then its holes: float64 ``[n, 2]`` of (x, y)."""
    return [np.asarray(ring.coords)[:, :2] for ring in (polygon.exterior, *polygon.interiors)]


def moved(shapes: Sequence[AnnotationShape], dy: float, dx: float) -> list[AnnotationShape]:
    """Move shapes by level-0 pixels."""
    if dy == 0 and dx == 0:
        return list(shapes)

    def move(geometry: BaseGeometry) -> BaseGeometry:
        return shapely.transform(geometry, lambda xy: xy + (dx, dy))

    return [
        replace(shape, geometry=move(shape.geometry), extra=_moved(shape.extra, move)) for shape in shapes
    ]


def _moved(item: Any, move: Callable[[BaseGeometry], BaseGeometry]) -> Any:
    """Move the geometries among what else a feature said, such as the nucleus of a cell."""
    if not isinstance(item, Mapping):
        return item
    if item.get("type") in PLACED and item.get("coordinates"):
        with contextlib.suppress(ValueError, TypeError, shapely.errors.ShapelyError):  # not one after all
            return dict(item) | mapping(move(make_geometry(item)))
    return {key: _moved(value, move) for key, value in item.items()}


def areal_or_less(points: np.ndarray) -> BaseGeometry:
    """Make a polygon of three corners or more, a line of two, a point of one."""
    if len(points) >= 3:
        return shapely.Polygon(points)
    return shapely.LineString(points) if len(points) == 2 else shapely.Point(points[0])


class VertexCount:
    """Counts corners while a file is read, and stops before they fill the memory.

    Parameters
    ----------
    name
        Of the file, for the message.
    """

    def __init__(self, name: str):
        self._name = name
        self._count = 0

    def add(self, count: int) -> None:
        """Count ``count`` more.

        Raises
        ------
        SlideError
            If there are more than :data:`MAX_VERTICES`.
        """
        self._count += count
        if self._count > MAX_VERTICES:
            raise SlideError(
                f"{self._name} holds outlines of more than {MAX_VERTICES:,} corners. Export fewer objects at a time, "
                "or simplify their outlines first."
            )
