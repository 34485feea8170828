"""Annotations as layers that a person edits, and back: nothing of a GeoJSON is lost on the way.

A shapes layer holds one napari shape for every ring: outlines, and holes as shapes of their own, so that each can be
moved and its corners dragged. The column ``ring`` of its table says what belongs together (``"3.0.1"``: third
annotation, first polygon, first hole); shapes that are drawn or pasted repeat the value of another or have none, and
are annotations of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from napari_kdseg.slides import AnnotationShape
from napari_kdseg.slides.annotations.holes import cut_holes
from napari_kdseg.slides.annotations.model import Colour, areal_or_less, moved, rings_of
from napari_kdseg.slides.geometry import Pair, corner_transform, units
from napari_kdseg.widgets.layers import colours
from napari_kdseg.widgets.layers.placement import ROLE_KEY, LayerTuple, to_corner

if TYPE_CHECKING:
    from napari.layers import Shapes

SHAPES_KEY = "kdseg_shapes"
ELLIPSE_CORNERS = 128
DRAGGED = 0.1
"""Pixels; napari keeps places with 32 bits, to a 64th of a pixel on slides of 200,000 pixels."""


def shapes_to_layer(
    shapes: Sequence[AnnotationShape], mpp: Pair | None, *, name: str = "annotations"
) -> LayerTuple:
    """Make a shapes layer of annotations.

    Parameters
    ----------
    shapes
        In level-0 pixels from the corner of the slide. A shapes layer cannot hold points: they are kept aside and
        come back with :func:`layer_to_shapes`.
    mpp
        Micrometres per level-0 pixel of the slide, (y, x), if it has a scale.
    name
        Of the layer.

    Returns
    -------
    data, options, "shapes"
        For ``viewer.add_shapes(data, **options)``.
    """
    palette = _palette(shapes)
    data, kinds, edges, rows = [], [], [], []
    for index, shape in enumerate(shapes):
        for ring, xy, kind in _rings(shape):
            data.append(xy[:, ::-1])
            kinds.append(kind)
            edges.append(_edge(shape, palette))
            rows.append((shape.class_name or "", shape.name or "", shape.locked, f"{index}.{ring}"))
    scale, translate = corner_transform(mpp)
    table = np.array(rows, dtype=object).reshape(-1, 4)  # an empty one too holds text, not numbers
    options = {
        "name": name,
        "ndim": 2,
        "shape_type": kinds or "polygon",
        "edge_color": np.array(edges) if edges else colours.class_colour(1),
        "face_color": "transparent",
        "edge_width": _edge_width(shapes),
        "features": dict(zip(("class", "name", "locked", "ring"), table.T, strict=True)),
        "feature_defaults": {"class": "", "name": "", "locked": False, "ring": ""},
        "metadata": {ROLE_KEY: "shapes", SHAPES_KEY: tuple(shapes)},
        "scale": scale,
        "translate": translate,
        "units": units(mpp),
        "axis_labels": ("y", "x"),
    }
    return data, options, "shapes"


def layer_to_shapes(layer: Shapes, mpp: Pair | None) -> list[AnnotationShape]:
    """Read the annotations off a shapes layer, one of ours or any other.

    Parameters
    ----------
    layer
        A napari shapes layer on the slide.
    mpp
        Micrometres per level-0 pixel of the slide, (y, x), if it has a scale.

    Returns
    -------
    list of AnnotationShape
        In level-0 pixels from the corner of the slide. What was not touched is exactly as it was, to the last digit;
        then come the shapes that were drawn here, in the order of the layer.
    """
    source: Sequence[AnnotationShape] = layer.metadata.get(SHAPES_KEY, ())
    rows = _Rows(layer, mpp)
    known, new = _sorted_by_ring(rows, source)
    palette = _palette(source)
    class_colours = {shape.class_name: shape.colour for shape in reversed(source) if shape.colour}
    result = []
    for index, shape in enumerate(source):
        rings = {ring: xy for ring, xy, _ in _rings(shape)}
        there = {ring: known[f"{index}.{ring}"] for ring in rings if f"{index}.{ring}" in known}
        if not rings:
            result.append(shape)  # points, which are not in the layer
        elif there:
            told = rows.tell(there[min(there)], shape, palette, class_colours)
            if there.keys() == rings.keys() and all(rows.unmoved(there[ring], rings[ring]) for ring in rings):
                result.append(told)
            elif not (geometry := _rebuilt(rows, there, shape)).is_empty:
                result.append(_edited(told, geometry))
    for row in new:
        class_name = rows.cell(row, "class")
        colour = class_colours.get(class_name) or rows.colour(row)
        result.append(AnnotationShape(rows.geometry(row), class_name, colour, rows.cell(row, "name")))
    return result


# -- rings and rows ----------------------------------------------------------------------------------


def _rings(shape: AnnotationShape) -> Iterator[tuple[str, np.ndarray, str]]:
    """Yield name, corners (x, y) without the closing one, and napari's kind of every ring or line of a shape."""
    for part, polygon in enumerate(shape.polygons):
        for ring, xy in enumerate(rings_of(polygon)):
            yield f"{part}.{ring}", xy[:-1], "polygon"
    if shape.geometry.geom_type in ("LineString", "MultiLineString"):
        for part, line in enumerate(shapely.get_parts(shape.geometry)):
            yield f"{part}.0", shapely.get_coordinates(line), "path"


def _sorted_by_ring(rows: _Rows, source: Sequence[AnnotationShape]) -> tuple[dict[str, int], list[int]]:
    """Tell the rows that are rings of known shapes, by name, from those that were drawn or pasted here."""
    names = {f"{index}.{ring}" for index, shape in enumerate(source) for ring, _, _ in _rings(shape)}
    known: dict[str, int] = {}
    new = []
    for row in range(len(rows)):
        ring = rows.cell(row, "ring")
        if ring in names and ring not in known:
            known[ring] = row
        else:
            new.append(row)
    # drawn after a hole was deleted, a shape has the name of that hole but lies elsewhere
    for ring, row in list(known.items()):
        around = known.get(f"{ring.rpartition('.')[0]}.0", row)
        if around != row and not rows.geometry(row).intersects(rows.geometry(around)):
            new.append(known.pop(ring))
    return known, sorted(new)


def _rebuilt(rows: _Rows, there: dict[str, int], shape: AnnotationShape) -> BaseGeometry:
    """Put a shape together again from the rings that are left of it; a hole without its outline goes with it."""
    original = {ring: xy for ring, xy, _ in _rings(shape)}
    parts: list[BaseGeometry] = []
    for ring, row in there.items():
        part, _, number = ring.partition(".")
        if number != "0":
            continue
        outer = rows.geometry(row, original[ring])
        holes = [
            rows.geometry(other, original[name])
            for name, other in there.items()
            if name.startswith(f"{part}.") and name != ring
        ]
        parts.extend(shapely.get_parts(cut_holes([outer], holes)[0]) if holes else [outer])
    if not shape.has_area:
        return parts[0] if len(parts) == 1 else shapely.MultiLineString(parts)
    parts = [part for part in parts if part.geom_type == "Polygon"]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def _edited(shape: AnnotationShape, geometry: BaseGeometry) -> AnnotationShape:
    """Give a shape other outlines; what was measured on the old ones is not true any more."""
    dy, dx = _shift(shape.geometry, geometry)
    extra = {
        where: dict(members)
        for where, members in moved([shape], dy, dx)[0].extra.items()
        if where != "geometry"
    }
    extra.get("properties", {}).pop("measurements", None)
    return replace(
        shape, geometry=geometry, extra={where: members for where, members in extra.items() if members}
    )


def _shift(before: BaseGeometry, after: BaseGeometry) -> Pair:
    """Return how far (y, x) a shape was dragged as a whole, and so what belongs to it; (0, 0) if it was changed."""
    old, new = shapely.get_coordinates(before), shapely.get_coordinates(after)
    if old.shape != new.shape or np.ptp(new - old, axis=0).max() > DRAGGED:
        return 0.0, 0.0
    dx, dy = (new - old).mean(axis=0)
    return float(dy), float(dx)


class _Rows:
    """The shapes of a napari layer, read once, on the coordinates of the slide.

    Parameters
    ----------
    layer
        A napari shapes layer.
    mpp
        Of the slide.
    """

    def __init__(self, layer: Shapes, mpp: Pair | None):
        self._data = layer.data
        self._kinds = layer.shape_type
        self._edges = np.asarray(layer.edge_color)
        self._features = layer.features
        self._matrix, self._offset = to_corner(layer, mpp)
        self._in_place = np.array_equal(self._matrix, np.eye(2)) and not self._offset.any()

    def __len__(self) -> int:
        return len(self._data)

    def cell(self, row: int, column: str) -> str | None:
        """Return what the table says; ``None`` for nothing."""
        value = self._features[column].iloc[row] if column in self._features else None
        return value if isinstance(value, str) and value else None

    def colour(self, row: int) -> Colour:
        """Colour of the edge."""
        red, green, blue = (round(float(channel) * 255) for channel in self._edges[row][:3])
        return red, green, blue

    def unmoved(self, row: int, xy: np.ndarray) -> bool:
        """Tell whether the corners are still ``xy``; napari keeps them with 32 bits."""
        data = self._data[row]
        return self._in_place and np.array_equal(data[:, -2:], xy[:, ::-1].astype(np.float32))

    def geometry(self, row: int, original: np.ndarray | None = None) -> BaseGeometry:
        """What is drawn, (x, y) in level-0 pixels from the corner of the slide; ``original`` if it was not moved."""
        if original is not None and self.unmoved(row, original):
            xy = original
        else:
            xy = (self._data[row][:, -2:].astype(np.float64) @ self._matrix.T + self._offset)[:, ::-1]
        if self._kinds[row] in ("path", "line"):
            return shapely.LineString(xy)
        if self._kinds[row] == "ellipse":
            angles = np.linspace(0, 2 * np.pi, ELLIPSE_CORNERS, endpoint=False)[:, None]
            centre, across, down = (xy[0] + xy[2]) / 2, (xy[1] - xy[0]) / 2, (xy[3] - xy[0]) / 2
            return shapely.Polygon(centre + across * np.cos(angles) + down * np.sin(angles))
        return areal_or_less(xy)

    def tell(
        self,
        row: int,
        shape: AnnotationShape,
        palette: dict[str | None, str],
        class_colours: dict[str | None, Colour],
    ) -> AnnotationShape:
        """Return ``shape`` with the class, name, lock and colour that the layer shows now."""
        class_name, name = self.cell(row, "class"), self.cell(row, "name")
        locked = bool(self._features["locked"].iloc[row]) if "locked" in self._features else shape.locked
        colour = shape.colour
        if colours.class_colour(0, [self.colour(row)]) != _edge(shape, palette).lower():
            colour = self.colour(row)
        elif class_name != shape.class_name:
            colour = class_colours.get(class_name)
        return replace(shape, class_name=class_name, name=name, locked=locked, colour=colour)


# -- looks -------------------------------------------------------------------------------------------


def _palette(shapes: Sequence[AnnotationShape]) -> dict[str | None, str]:
    """Colours for the classes that bring none."""
    names = dict.fromkeys(shape.class_name for shape in shapes)
    return {name: colours.class_colour(index) for index, name in enumerate(names, start=1)}


def _edge(shape: AnnotationShape, palette: dict[str | None, str]) -> str:
    return colours.class_colour(0, [shape.colour]) if shape.colour else palette[shape.class_name]


def _edge_width(shapes: Sequence[AnnotationShape]) -> float:
    """Level-0 pixels: napari's edges grow and shrink with the slide, so they follow the size of what is drawn."""
    if not shapes:
        return 4.0
    boxes = shapely.bounds([shape.geometry for shape in shapes])
    return float(np.clip(np.nanmedian(boxes[:, 2:] - boxes[:, :2]) / 100, 1.0, 60.0))
