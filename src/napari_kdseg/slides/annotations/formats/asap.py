"""ASAP's XML (github.com/computationalpathologygroup/ASAP): outlines in groups, level-0 pixels.

ASAP has no holes. They are written as outlines of a group of their own, ``"Tumor hole"`` within the group ``"Tumor"``;
read as holes are such groups, and those that people commonly use for it (:data:`HOLE_GROUPS`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from napari_kdseg.slides.annotations.formats.xml_elements import allowed, elements, points_of, text_of
from napari_kdseg.slides.annotations.holes import cut_holes
from napari_kdseg.slides.annotations.model import (
    AnnotationShape,
    Colour,
    VertexCount,
    areal_or_less,
    rings_of,
)

ROOT = "ASAP_Annotations"
HOLE_GROUPS = ("hole", "holes", "exclusion", "exclude")
"""Groups of these names, in any case, are cut out of everything; ``"<group> hole"`` only out of its group."""

DEFAULT_COLOUR = "#F4FA58"


@dataclass(frozen=True)
class _Group:
    parent: str
    colour: Colour | None


def parse_asap(content: bytes, name: str) -> list[AnnotationShape]:
    """Read the annotations of a document whose root is ``ASAP_Annotations``.

    Raises
    ------
    SlideError
        If it is malformed.
    """
    vertices = VertexCount(name)
    shapes: list[AnnotationShape] = []
    groups: dict[str, _Group] = {}
    for event, element in elements(content, name):
        if event == "end" and element.tag == "Annotation":
            shape = _shape(element, vertices, name)
            if shape is not None:
                shapes.append(shape)
            element.clear()
        elif event == "end" and element.tag == "Group":
            about = element.attrib
            groups[about.get("Name", "")] = _Group(
                about.get("PartOfGroup", "None"), _colour(about.get("Color"))
            )
    shapes = [_coloured(shape, groups) for shape in shapes]
    return _with_holes(shapes, groups)


def _shape(element: Element, vertices: VertexCount, name: str) -> AnnotationShape | None:
    corners = element.findall("Coordinates/Coordinate")
    if not corners:
        return None
    corners.sort(key=_order)
    about = element.attrib
    group = about.get("PartOfGroup", "None")
    return AnnotationShape(
        geometry=_geometry(about.get("Type", "Polygon"), points_of(corners, vertices, name)),
        class_name=None if group in ("", "None") else group,
        colour=_colour(about.get("Color")),
        name=about.get("Name") or None,
    )


def _order(corner: Element) -> float:
    try:
        return float(corner.get("Order", 0))
    except ValueError:
        return 0.0


def _geometry(kind: str, points: np.ndarray) -> BaseGeometry:
    match kind:
        case "Dot":
            return shapely.Point(points[0])
        case "PointSet":
            return shapely.MultiPoint(points)
        case "Measurement" if len(points) > 1:
            return shapely.LineString(points)
    return areal_or_less(points)


def _colour(text: str | None) -> Colour | None:
    try:
        red, green, blue = bytes.fromhex((text or "").removeprefix("#"))
    except ValueError:
        return None
    return red, green, blue


def _coloured(shape: AnnotationShape, groups: dict[str, _Group]) -> AnnotationShape:
    """Give a shape the colour of its group, which is the colour ASAP shows it in."""
    group = groups.get(shape.class_name or "")
    return shape if group is None or group.colour is None else replace(shape, colour=group.colour)


def _with_holes(shapes: list[AnnotationShape], groups: dict[str, _Group]) -> list[AnnotationShape]:
    for hole in dict.fromkeys(shape.class_name for shape in shapes):
        if hole is None:
            continue
        parent = groups[hole].parent if hole in groups else "None"
        of_parent = parent != "None" and hole.lower() in (f"{parent} hole".lower(), f"{parent} holes".lower())
        if not of_parent and hole.lower() not in HOLE_GROUPS:
            continue
        cutters = [shape.geometry for shape in shapes if shape.class_name == hole]
        shapes = [shape for shape in shapes if shape.class_name != hole]
        for cut in [parent] if of_parent else list(dict.fromkeys(shape.class_name for shape in shapes)):
            chosen = [index for index, shape in enumerate(shapes) if shape.class_name == cut]
            made = cut_holes([shapes[index].geometry for index in chosen], cutters)
            for index, geometry in zip(chosen, made, strict=True):
                shapes[index] = replace(shapes[index], geometry=geometry)
    return [shape for shape in shapes if not shape.geometry.is_empty]


def format_asap(shapes: Sequence[AnnotationShape]) -> bytes:
    """Write shapes as ASAP reads them; the polygons of a multipolygon become annotations of the same name."""
    root = ElementTree.Element(ROOT)
    drawn = ElementTree.SubElement(root, "Annotations")
    groups: dict[str, tuple[str, str]] = {}
    for number, shape in enumerate(shapes):
        colour = "#{:02X}{:02X}{:02X}".format(*shape.colour) if shape.colour else DEFAULT_COLOUR
        group, name = allowed(shape.class_name or "None"), allowed(shape.name or f"Annotation {number}")
        if shape.class_name is not None:
            groups.setdefault(group, ("None", colour))
        if not shape.has_area:
            _write_other(drawn, shape.geometry, name, group, colour)
        for polygon in shape.polygons:
            outline, *holes = rings_of(polygon)
            _write(drawn, "Polygon", name, group, colour, outline[:-1])
            if holes:
                hole_group = f"{group} hole" if shape.class_name is not None else "hole"
                groups.setdefault(hole_group, (group, colour))
                for hole in holes:
                    _write(drawn, "Polygon", name, hole_group, colour, hole[:-1])
    listed = ElementTree.SubElement(root, "AnnotationGroups")
    for group, (parent, colour) in groups.items():
        item = ElementTree.SubElement(listed, "Group", Name=group, PartOfGroup=parent, Color=colour)
        ElementTree.SubElement(item, "Attributes")
    ElementTree.indent(root, "\t")
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _write_other(drawn: Element, geometry: BaseGeometry, name: str, group: str, colour: str) -> None:
    """Write lines and points."""
    if geometry.geom_type == "MultiPoint":
        _write(drawn, "PointSet", name, group, colour, shapely.get_coordinates(geometry))
        return
    for part in shapely.get_parts(geometry):
        kind = "Dot" if part.geom_type == "Point" else "Measurement"
        _write(drawn, kind, name, group, colour, shapely.get_coordinates(part))


def _write(drawn: Element, kind: str, name: str, group: str, colour: str, points: np.ndarray) -> None:
    item = ElementTree.SubElement(drawn, "Annotation", Name=name, Type=kind, PartOfGroup=group, Color=colour)
    corners = ElementTree.SubElement(item, "Coordinates")
    for order, (x, y) in enumerate(points):
        ElementTree.SubElement(corners, "Coordinate", Order=str(order), X=text_of(x), Y=text_of(y))
