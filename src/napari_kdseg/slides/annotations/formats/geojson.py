"""GeoJSON as QuPath writes and reads it.

Level-0 pixels, a ``Feature`` an object; ``properties`` hold ``objectType``, ``classification {name, color}`` and
``isLocked``. Older versions wrote the type into ``id`` and the colour as one integer, and a bare list of features.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.annotations.model import AnnotationShape, Colour, VertexCount

OLD_TYPES = {
    "PathAnnotationObject": "annotation",
    "PathDetectionObject": "detection",
    "PathCellObject": "cell",
    "PathTileObject": "tile",
    "TMACoreObject": "tmaCore",
    "PathRootObject": "root",
}
GEOMETRIES = ("Polygon", "MultiPolygon", "LineString", "MultiLineString", "Point", "MultiPoint")


def parse_geojson(content: bytes, name: str) -> list[AnnotationShape]:
    """Read the features of a GeoJSON document.

    Parameters
    ----------
    content
        The document.
    name
        Of the file, for messages.

    Raises
    ------
    SlideError
        If it is no GeoJSON, or a feature in it is malformed.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SlideError(
            f"{name} is truncated or damaged: it is no JSON ({error}). Export it again."
        ) from error
    vertices = VertexCount(name)
    shapes = []
    for number, feature in enumerate(_features(document, name), start=1):
        try:
            shape = _shape(feature, vertices)
        except (LookupError, TypeError, ValueError, AttributeError, shapely.errors.ShapelyError) as error:
            raise SlideError(
                f"Feature {number} of {name} is malformed ({error}). Export the file again."
            ) from error
        if shape is not None:
            shapes.append(shape)
    return shapes


def _features(document: Any, name: str) -> Iterator[dict[str, Any]]:
    """Yield every feature, children after their parent."""
    waiting = [document]
    while waiting:
        item = waiting.pop()
        kind = item.get("type") if isinstance(item, dict) else None
        if isinstance(item, list):
            waiting.extend(reversed(item))
        elif kind == "FeatureCollection" and isinstance(item.get("features"), list):
            waiting.extend(reversed(item["features"]))
        elif kind == "Feature":
            yield item
            properties = item.get("properties")
            if isinstance(properties, dict):
                waiting.extend(reversed(properties.get("childObjects") or []))
        elif kind in GEOMETRIES:
            yield {"geometry": item}
        else:
            raise SlideError(
                f"{name} is JSON, but no GeoJSON: a part of it is neither a feature nor a geometry. In QuPath, use "
                "File > Export objects as GeoJSON."
            )


def _shape(feature: dict[str, Any], vertices: VertexCount) -> AnnotationShape | None:
    """Read one feature; the root of a hierarchy and features without a place are none."""
    identifier = feature.get("id")
    properties = dict(feature.get("properties") or {})
    old_type = OLD_TYPES.get(identifier) if isinstance(identifier, str) else None
    object_type = properties.pop("objectType", properties.pop("object_type", old_type or "annotation"))
    if object_type == "root" or feature.get("geometry") is None:
        return None
    described = dict(feature["geometry"])
    geometry = _geometry(described.pop("type"), described.pop("coordinates"), vertices)
    class_name, colour = _classification(properties.pop("classification", None))
    properties.pop("childObjects", None)
    known = ("type", "id", "geometry", "properties")
    rest = {key: value for key, value in feature.items() if key not in known}
    extra = {"feature": rest, "geometry": described, "properties": properties}
    return AnnotationShape(
        geometry=geometry,
        class_name=class_name,
        colour=colour,
        name=_text(properties.pop("name", None)),
        object_type=str(object_type),
        locked=bool(properties.pop("isLocked", False)),
        identifier=None if old_type or identifier is None else str(identifier),
        extra={where: members for where, members in extra.items() if members},
    )


def _classification(item: Any) -> tuple[str | None, Colour | None]:
    """Return name and colour of a class; a class derived from another has several names."""
    if item is None or isinstance(item, str):
        return item or None, None
    name = _text(item.get("name") or ": ".join(item.get("names") or []) or None)
    colour = item.get("color", item.get("colorRGB"))
    if isinstance(colour, int):  # as Java packs it: alpha, red, green, blue, and usually negative
        return name, ((colour >> 16) & 255, (colour >> 8) & 255, colour & 255)
    if colour is None:
        return name, None
    red, green, blue = (int(value) & 255 for value in colour[:3])
    return name, (red, green, blue)


def _text(item: Any) -> str | None:
    if item is not None and not isinstance(item, str):
        raise TypeError("a name is no text")
    return item


def _geometry(kind: str, coordinates: Any, vertices: VertexCount) -> BaseGeometry:
    def points(item: Any) -> np.ndarray:
        array = np.array(item, dtype=np.float64)[:, :2]  # a third coordinate is a height
        vertices.add(len(array))
        if not np.isfinite(array).all():
            raise ValueError("a coordinate is no finite number")
        return array

    def polygon(rings: Any) -> shapely.Polygon:
        outline, *holes = [points(ring) for ring in rings]
        return shapely.Polygon(outline, holes)

    match kind:
        case "Polygon":
            return polygon(coordinates)
        case "MultiPolygon":
            return shapely.MultiPolygon([polygon(rings) for rings in coordinates])
        case "LineString":
            return shapely.LineString(points(coordinates))
        case "MultiLineString":
            return shapely.MultiLineString([points(line) for line in coordinates])
        case "Point":
            return shapely.Point(points([coordinates])[0])
        case "MultiPoint":
            return shapely.MultiPoint(points(coordinates))
    raise ValueError(f"geometries of type {kind!r} are not known here")


def format_geojson(shapes: Sequence[AnnotationShape]) -> bytes:
    """Write shapes as a feature collection that QuPath reads."""
    collection = {"type": "FeatureCollection", "features": [_feature(shape) for shape in shapes]}
    return json.dumps(collection, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _feature(shape: AnnotationShape) -> dict[str, Any]:
    properties: dict[str, Any] = {"objectType": shape.object_type}
    if shape.name is not None:
        properties["name"] = shape.name
    if shape.class_name is not None:
        properties["classification"] = {"name": shape.class_name}
        if shape.colour is not None:
            properties["classification"]["color"] = list(shape.colour)
    if shape.locked:
        properties["isLocked"] = True
    geometry = {"type": shape.geometry.geom_type, "coordinates": _coordinates(shape.geometry)}
    return {
        "type": "Feature",
        **({} if shape.identifier is None else {"id": shape.identifier}),
        "geometry": geometry | dict(shape.extra.get("geometry", {})),
        "properties": properties | dict(shape.extra.get("properties", {})),
        **shape.extra.get("feature", {}),
    }


def _coordinates(geometry: BaseGeometry) -> Any:
    if geometry.geom_type.startswith("Multi"):
        return [_coordinates(part) for part in geometry.geoms]
    if geometry.geom_type == "Polygon":
        return [_pairs(ring) for ring in (geometry.exterior, *geometry.interiors)]
    pairs = _pairs(geometry)
    return pairs[0] if geometry.geom_type == "Point" else pairs


def _pairs(line: Any) -> list[list[float]]:
    points = np.asarray(line.coords)[:, :2]
    whole = points.astype(np.int64)
    return (whole if (whole == points).all() else points).tolist()
