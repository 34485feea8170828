"""Aperio ImageScope's XML: a layer a class, its regions in level-0 pixels; HALO's ``.annotations`` are close to it.

``LineColor`` is an integer of blue, green, red. A region with ``NegativeROA="1"`` is a hole in its layer.
"""

from __future__ import annotations

from collections.abc import Sequence
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

ROOT = "Annotations"
RECTANGLES, ELLIPSES, LINES = ("1", "Rectangle"), ("2", "Ellipse"), ("3", "4", "Arrow", "Ruler")
ELLIPSE_CORNERS = 128
DEFAULT_COLOUR = (0, 255, 0)
Region = tuple[BaseGeometry, str | None, bool]


def parse_imagescope(content: bytes, name: str, notes: list[str]) -> list[AnnotationShape]:
    """Read the regions of a document whose root is ``Annotations``.

    Where a layer has no name, but each of its regions a text, the text is the class, which is added to ``notes``.

    Raises
    ------
    SlideError
        If it is malformed.
    """
    vertices = VertexCount(name)
    shapes: list[AnnotationShape] = []
    regions: list[Region] = []
    for event, element in elements(content, name):
        if event == "end" and element.tag == "Region":
            region = _region(element, vertices, name)
            if region is not None:
                regions.append(region)
            element.clear()
        elif event == "end" and element.tag == "Annotation":
            shapes += _layer(
                element, regions, number=element.get("Id", str(len(shapes))), name=name, notes=notes
            )
            regions = []
            element.clear()
    return shapes


def _region(element: Element, vertices: VertexCount, name: str) -> Region | None:
    corners = [*element.iterfind("Vertices/Vertex"), *element.iterfind("Vertices/V")]
    if not corners:
        return None
    points = points_of(corners, vertices, name)
    negative = element.get("NegativeROA", "0") == "1"
    return _geometry(element.get("Type", "0"), points), element.get("Text") or None, negative


def _geometry(kind: str, points: np.ndarray) -> BaseGeometry:
    """Make what was drawn; rectangles and ellipses are given by two or four corners of their box."""
    if kind in LINES and len(points) > 1:
        return shapely.LineString(points)
    if kind in ELLIPSES and len(points) > 1:
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        angles = np.linspace(0, 2 * np.pi, ELLIPSE_CORNERS, endpoint=False)
        radii = np.array([right - left, bottom - top]) / 2
        centre = np.array([left + right, top + bottom]) / 2
        return shapely.Polygon(centre + radii * np.column_stack([np.cos(angles), np.sin(angles)]))
    if kind in RECTANGLES and len(points) == 2:
        return shapely.box(*points.min(axis=0), *points.max(axis=0))
    return areal_or_less(points)


def _layer(
    element: Element, regions: list[Region], number: str, name: str, notes: list[str]
) -> list[AnnotationShape]:
    """Put together the regions of one layer, whose elements are already read."""
    said = [item.get("Value") for item in element.iterfind("Attributes/Attribute")]
    class_name = element.get("Name") or next((text for text in said if text), None)
    colour = _colour(element.get("LineColor"))
    drawn = [(geometry, text) for geometry, text, negative in regions if not negative]
    holes = [geometry for geometry, _, negative in regions if negative]
    cut = (
        cut_holes([geometry for geometry, _ in drawn], holes)
        if holes
        else [geometry for geometry, _ in drawn]
    )
    texts = [text for _, text in drawn]
    by_text = class_name is None and bool(texts) and all(texts)
    if by_text:
        notes.append(f"Layer {number} of {name} has no name: the class of each region is its text.")
    elif class_name is None and len(set(texts)) > 1:
        notes.append(
            f"Layer {number} of {name} has no name. Only some of its regions have a text: all are one class."
        )
    return [
        AnnotationShape(geometry, text if by_text else class_name or f"layer {number}", colour, text)
        for geometry, (_, text) in zip(cut, drawn, strict=True)
        if not geometry.is_empty
    ]


def _colour(text: str | None) -> Colour | None:
    try:
        packed = int(text or "")
    except ValueError:
        return None
    return packed & 255, (packed >> 8) & 255, (packed >> 16) & 255


def format_imagescope(shapes: Sequence[AnnotationShape], mpp: tuple[float, float] | None) -> bytes:
    """Write shapes as ImageScope reads them: a layer for every class.

    Parameters
    ----------
    shapes
        What is written; the polygons of a multipolygon become regions of the same text. Points cannot be written: they
        become regions of one corner, which ImageScope does not show.
    mpp
        Micrometres per level-0 pixel (y, x), for lengths and areas in micrometres.
    """
    width = 0.0 if mpp is None else (mpp[0] * mpp[1]) ** 0.5
    root = ElementTree.Element(ROOT, MicronsPerPixel=f"{width:.6f}")
    for number, class_name in enumerate(dict.fromkeys(shape.class_name for shape in shapes), start=1):
        members = [shape for shape in shapes if shape.class_name == class_name]
        _write_layer(root, str(number), allowed(class_name or ""), members, width)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _write_layer(
    root: Element, number: str, name: str, shapes: Sequence[AnnotationShape], width: float
) -> None:
    red, green, blue = next((shape.colour for shape in shapes if shape.colour), DEFAULT_COLOUR)
    about = {"Id": number, "Name": name, "ReadOnly": "0", "NameReadOnly": "0", "LineColorReadOnly": "0"}
    about |= {"Incremental": "0", "Type": "4", "LineColor": str(red + 256 * green + 65536 * blue)}
    about |= {"Visible": "1", "Selected": "0", "MarkupImagePath": "", "MacroName": ""}
    layer = ElementTree.SubElement(root, "Annotation", about)
    said = ElementTree.SubElement(layer, "Attributes")
    ElementTree.SubElement(said, "Attribute", Name="Description", Id="0", Value=name)
    regions = ElementTree.SubElement(layer, "Regions")
    headers = ElementTree.SubElement(regions, "RegionAttributeHeaders")
    for identifier, title in (("9999", "Region"), ("9997", "Length"), ("9996", "Area"), ("9998", "Text")):
        ElementTree.SubElement(headers, "AttributeHeader", Id=identifier, Name=title, ColumnWidth="-1")
    for shape in shapes:
        text = allowed(shape.name or "")
        for polygon in shape.polygons:
            for index, ring in enumerate(rings_of(polygon)):
                _write_region(regions, "0", text, ring[:-1], width, negative=index > 0)
        if not shape.has_area:
            for part in shapely.get_parts(shape.geometry):
                kind = "4" if part.geom_type == "LineString" else "0"
                _write_region(regions, kind, text, shapely.get_coordinates(part), width, negative=False)
    ElementTree.SubElement(layer, "Plots")


def _write_region(
    regions: Element, kind: str, text: str, points: np.ndarray, width: float, *, negative: bool
) -> None:
    line = areal_or_less(points)
    number = str(len(regions))  # the headers come first, so regions count from 1
    about = {
        "Id": number,
        "Type": kind,
        "Zoom": "1",
        "Selected": "0",
        "ImageLocation": "",
        "ImageFocus": "-1",
    }
    about |= {"Length": f"{line.length:.1f}", "Area": f"{line.area:.1f}"}
    about |= {"LengthMicrons": f"{line.length * width:.1f}", "AreaMicrons": f"{line.area * width**2:.1f}"}
    about |= {"Text": text, "NegativeROA": str(int(negative)), "InputRegionId": "0", "Analyze": "1"}
    region = ElementTree.SubElement(regions, "Region", about | {"DisplayId": number})
    ElementTree.SubElement(region, "Attributes")
    vertices = ElementTree.SubElement(region, "Vertices")
    for x, y in points:
        ElementTree.SubElement(vertices, "Vertex", X=text_of(x), Y=text_of(y), Z="0")
