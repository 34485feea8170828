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
from napari_kdseg.slides.annotations.formats.said_classes import classes_elsewhere, classification, text
from napari_kdseg.slides.annotations.model import AnnotationShape, VertexCount

OLD_TYPES = {
    "PathAnnotationObject": "annotation",
    "PathDetectionObject": "detection",
    "PathCellObject": "cell",
    "PathTileObject": "tile",
    "TMACoreObject": "tmaCore",
    "PathRootObject": "root",
}
GEOMETRIES = ("Polygon", "MultiPolygon", "LineString", "MultiLineString", "Point", "MultiPoint")
COLLECTION = "GeometryCollection"
MOST_NAMED = 5
"""Features that are left out are named up to so many."""


def parse_geojson(content: str, name: str, notes: list[str]) -> list[AnnotationShape]:
    """Read the features of a GeoJSON document.

    Parameters
    ----------
    content
        The document.
    name
        Of the file, for messages.
    notes
        What was decided, and which features were left out, is added to it.

    Raises
    ------
    SlideError
        If it is no GeoJSON, or no feature in it can be read.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SlideError(
            f"{name} is truncated or damaged: it is no JSON ({error}). Export it again."
        ) from error
    vertices = VertexCount(name)
    shapes: list[AnnotationShape] = []
    odd: list[tuple[int, Exception]] = []
    number = 0
    for number, feature in enumerate(_features(document, name), start=1):
        try:
            shape = _shape(feature, vertices)
        except (LookupError, TypeError, ValueError, AttributeError, shapely.errors.ShapelyError) as error:
            odd.append((number, error))
            continue
        if shape is not None:
            shapes.append(shape)
    if odd and not shapes:
        raise SlideError(f"Feature {odd[0][0]} of {name} is malformed ({odd[0][1]}). Export the file again.")
    if odd:
        named = "; ".join(f"number {where} ({error})" for where, error in odd[:MOST_NAMED])
        more = f"; and {len(odd) - MOST_NAMED} more" if len(odd) > MOST_NAMED else ""
        notes.append(f"{len(odd)} of {number} features of {name} left out: {named}{more}.")
    return classes_elsewhere(shapes, name, notes)


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
        elif kind in GEOMETRIES or kind == COLLECTION:
            yield {"geometry": item}
        elif item is not document and isinstance(document, dict):
            yield {"geometry": {"type": kind, "coordinates": None}}  # one odd thing among features
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
    parts = described.pop("geometries", None)
    geometry = _geometry(described.pop("type"), described.pop("coordinates", parts), vertices)
    class_name, colour = classification(properties.pop("classification", None))
    properties.pop("childObjects", None)
    known = ("type", "id", "geometry", "properties")
    rest = {key: value for key, value in feature.items() if key not in known}
    extra = {"feature": rest, "geometry": described, "properties": properties}
    return AnnotationShape(
        geometry=geometry,
        class_name=class_name,
        colour=colour,
        name=text(properties.pop("name", None)),
        object_type=str(object_type),
        locked=bool(properties.pop("isLocked", False)),
        identifier=None if old_type or identifier is None else str(identifier),
        extra={where: members for where, members in extra.items() if members},
    )


def _geometry(kind: str, coordinates: Any, vertices: VertexCount) -> BaseGeometry:
    def points(item: Any) -> np.ndarray:
        array = np.array(item, dtype=np.float64).reshape(len(item), -1)[
            :, :2
        ]  # a third coordinate is a height
        vertices.add(len(array))
        if not np.isfinite(array).all():
            raise ValueError("a coordinate is no finite number")
        return array

    def polygon(rings: Any) -> shapely.Polygon:
        if not rings:
            raise ValueError("it is empty")
        outline, *holes = [points(ring) for ring in rings]
        made = shapely.Polygon(outline, holes)
        if made.length == 0 or shapely.convex_hull(made).area == 0:
            raise ValueError("it has no area")
        return made

    def collection(members: Any) -> BaseGeometry:
        made = [_geometry(each["type"], each["coordinates"], vertices) for each in members]
        flat = [part for each in made for part in shapely.get_parts(each)]
        kinds = {part.geom_type for part in flat}
        if len(kinds) != 1:
            raise ValueError(f"a collection of {' and '.join(sorted(kinds)) or 'nothing'}")
        many = {
            "Polygon": shapely.MultiPolygon,
            "LineString": shapely.MultiLineString,
            "Point": shapely.MultiPoint,
        }
        return flat[0] if len(flat) == 1 else many[kinds.pop()](flat)

    match kind:
        case "Polygon":
            return polygon(coordinates)
        case "MultiPolygon":
            if not coordinates:
                raise ValueError("it is empty")
            return shapely.MultiPolygon([polygon(rings) for rings in coordinates])
        case "LineString":
            return shapely.LineString(points(coordinates))
        case "MultiLineString":
            return shapely.MultiLineString([points(line) for line in coordinates])
        case "Point":
            return shapely.Point(points([coordinates])[0])
        case "MultiPoint":
            return shapely.MultiPoint(points(coordinates))
        case "GeometryCollection":
            return collection(coordinates)
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
