"""Each format against a sample as its program writes it, and back again."""

from __future__ import annotations

import gzip
import json
import math

import numpy as np
import pytest
import shapely

from napari_kdseg.errors import OutputError
from napari_kdseg.slides import (
    AnnotationShape,
    SlideError,
    bounds_origin,
    find_annotation,
    open_annotation,
    open_slide,
    read_annotations,
    write_annotations,
)
from napari_kdseg.slides.annotations import model
from napari_kdseg.slides.annotations.formats import bounded

RING = [[10, 10], [60, 10.25], [60, 50], [10, 50], [10, 10]]
HOLE = [[20, 20], [30, 20], [30, 30], [20, 30], [20, 20]]
FAR = [[[100, 100], [140, 100], [140, 140], [100, 100]]]

QUPATH = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "id": "0d17b2ab-dc6b-4a32-8fbf-6d0ea8cde4ff",
            "geometry": {"type": "Polygon", "coordinates": [RING, HOLE]},
            "properties": {
                "objectType": "annotation",
                "name": "the large one",
                "classification": {"name": "Tumor", "color": [200, 0, 0]},
                "isLocked": True,
                "measurements": {"Area µm^2": 1234.5},
            },
        },
        {
            "type": "Feature",
            "id": "3f4a7c52-35bc-4b4b-a7a9-4a0fdd6d1e1c",
            "geometry": {"type": "MultiPolygon", "coordinates": [[RING, HOLE], FAR]},
            "properties": {
                "objectType": "annotation",
                "classification": {"name": "Immune cells", "color": [160, 90, 160]},
            },
        },
        {
            "type": "Feature",
            "id": "9d2cde5e-2f9e-4a51-a7ae-f0a0b3c7a711",
            "geometry": {"type": "Polygon", "coordinates": FAR, "isEllipse": True},
            "nucleusGeometry": {"type": "Polygon", "coordinates": FAR},
            "properties": {"objectType": "cell"},
        },
        {
            "type": "Feature",
            "geometry": {"type": "LineString", "coordinates": [[1, 2], [3.5, 4]]},
            "properties": {"objectType": "annotation"},
        },
        {
            "type": "Feature",
            "geometry": {"type": "MultiPoint", "coordinates": [[1, 2], [3.5, 4]]},
            "properties": {"objectType": "annotation", "classification": {"name": "Positive"}},
        },
    ],
}

ASAP = """<?xml version="1.0"?>
<ASAP_Annotations>
\t<Annotations>
\t\t<Annotation Name="Annotation 0" Type="Polygon" PartOfGroup="Tumor" Color="#F4FA58">
\t\t\t<Coordinates>
\t\t\t\t<Coordinate Order="1" X="60.5" Y="10" />
\t\t\t\t<Coordinate Order="0" X="10" Y="10" />
\t\t\t\t<Coordinate Order="2" X="60" Y="50" />
\t\t\t\t<Coordinate Order="3" X="10" Y="50" />
\t\t\t</Coordinates>
\t\t</Annotation>
\t\t<Annotation Name="Annotation 1" Type="Spline" PartOfGroup="Exclusion" Color="#000000">
\t\t\t<Coordinates>
\t\t\t\t<Coordinate Order="0" X="20" Y="20" />
\t\t\t\t<Coordinate Order="1" X="30" Y="20" />
\t\t\t\t<Coordinate Order="2" X="30" Y="30" />
\t\t\t</Coordinates>
\t\t</Annotation>
\t\t<Annotation Name="Annotation 2" Type="Dot" PartOfGroup="None" Color="#F4FA58">
\t\t\t<Coordinates>
\t\t\t\t<Coordinate Order="0" X="5" Y="6" />
\t\t\t</Coordinates>
\t\t</Annotation>
\t</Annotations>
\t<AnnotationGroups>
\t\t<Group Name="Tumor" PartOfGroup="None" Color="#64FE2E">
\t\t\t<Attributes />
\t\t</Group>
\t\t<Group Name="Exclusion" PartOfGroup="None" Color="#0000FF">
\t\t\t<Attributes />
\t\t</Group>
\t</AnnotationGroups>
</ASAP_Annotations>
"""

IMAGESCOPE = """<?xml version="1.0" encoding="UTF-8"?>
<Annotations MicronsPerPixel="0.499000">
  <Annotation Id="1" Name="" ReadOnly="0" NameReadOnly="0" LineColorReadOnly="0" Incremental="0" Type="4" \
LineColor="65280" Visible="1" Selected="1" MarkupImagePath="" MacroName="">
    <Attributes>
      <Attribute Name="Description" Id="0" Value="Gland"/>
    </Attributes>
    <Regions>
      <RegionAttributeHeaders>
        <AttributeHeader Id="9999" Name="Region" ColumnWidth="-1"/>
      </RegionAttributeHeaders>
      <Region Id="1" Type="0" Zoom="0.5" Selected="0" ImageLocation="" ImageFocus="-1" Length="180" Area="2000" \
LengthMicrons="90" AreaMicrons="500" Text="first" NegativeROA="0" InputRegionId="0" Analyze="1" DisplayId="1">
        <Attributes/>
        <Vertices>
          <Vertex X="10" Y="10" Z="0"/><Vertex X="60.5" Y="10" Z="0"/><Vertex X="60" Y="50" Z="0"/>
          <Vertex X="10" Y="50" Z="0"/>
        </Vertices>
      </Region>
      <Region Id="2" Type="0" Zoom="0.5" Text="" NegativeROA="1" DisplayId="2">
        <Attributes/>
        <Vertices><Vertex X="20" Y="20"/><Vertex X="30" Y="20"/><Vertex X="30" Y="30"/></Vertices>
      </Region>
      <Region Id="3" Type="0" Text="island" NegativeROA="0" DisplayId="3">
        <Vertices><Vertex X="26" Y="22"/><Vertex X="28" Y="22"/><Vertex X="28" Y="24"/></Vertices>
      </Region>
    </Regions>
    <Plots/>
  </Annotation>
  <Annotation Id="2" Name="Vessel" LineColor="255">
    <Regions>
      <Region Id="1" Type="2" NegativeROA="0">
        <Vertices><Vertex X="100" Y="100"/><Vertex X="140" Y="120"/></Vertices></Region>
      <Region Id="2" Type="1" NegativeROA="0">
        <Vertices><Vertex X="200" Y="100"/><Vertex X="240" Y="120"/></Vertices></Region>
      <Region Id="3" Type="0" NegativeROA="0"><Vertices/></Region>
    </Regions>
  </Annotation>
</Annotations>
"""


def read(tmp_path, text, name="a.xml", **more):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_annotations(path, **more)


# -- QuPath ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.geojson", "a.json", "a.geojson.gz"])
def test_geojson_comes_back_as_it_was(tmp_path, name):
    text = json.dumps(QUPATH).encode()
    shapes = read(tmp_path, gzip.compress(text) if name.endswith(".gz") else text, name)
    assert [shape.object_type for shape in shapes] == [
        "annotation",
        "annotation",
        "cell",
        *["annotation"] * 2,
    ]
    first = shapes[0]
    assert (first.class_name, first.colour, first.name) == ("Tumor", (200, 0, 0), "the large one")
    assert first.locked
    assert first.geometry.area == shapely.Polygon(RING, [HOLE]).area
    assert len(shapes[1].polygons) == 2
    write_annotations(tmp_path / f"again-{name}", shapes)
    written = (tmp_path / f"again-{name}").read_bytes()
    assert json.loads(gzip.decompress(written) if name.endswith(".gz") else written) == QUPATH


def test_older_geojson(tmp_path):
    old = [
        {
            "type": "Feature",
            "id": "PathAnnotationObject",
            "geometry": {"type": "Polygon", "coordinates": [RING]},
            "properties": {"classification": {"name": "Tumor", "colorRGB": -3670016}, "isLocked": False},
        },
        {
            "type": "Feature",
            "id": "PathDetectionObject",
            "geometry": {"type": "Polygon", "coordinates": FAR},
            "properties": {"classification": {"names": ["Tumor", "Positive"], "color": [1, 2, 3]}},
        },
        {"type": "Feature", "id": "PathRootObject", "geometry": None, "properties": {}},
    ]
    annotation, detection = read(tmp_path, json.dumps(old), "a.json")
    assert annotation.colour == (200, 0, 0)
    assert annotation.object_type == "annotation"
    assert not annotation.locked
    assert annotation.identifier is None
    assert (detection.object_type, detection.class_name) == ("detection", "Tumor: Positive")


def test_children_and_bare_geometries_are_read(tmp_path):
    child = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": FAR}, "properties": {}}
    parent = {**child, "properties": {"childObjects": [child, child]}}
    shapes = read(tmp_path, json.dumps({"type": "FeatureCollection", "features": [parent]}), "a.geojson")
    assert len(shapes) == 3
    assert not any(shape.extra for shape in shapes)
    (shape,) = read(tmp_path, json.dumps({"type": "Polygon", "coordinates": FAR}), "b.geojson")
    assert shape.geometry.area == 800


def test_coordinates_keep_every_digit(tmp_path):
    points = np.random.default_rng(0).uniform(0, 100_000, (50, 2))
    shapes = [AnnotationShape(shapely.Polygon(points), "a")]
    for name, flavour in (("a.geojson", "asap"), ("a.xml", "asap"), ("b.xml", "imagescope")):
        write_annotations(tmp_path / name, shapes, xml=flavour)
        (again,) = read_annotations(tmp_path / name)
        np.testing.assert_array_equal(shapely.get_coordinates(again.geometry)[:-1], points)


# -- ASAP --------------------------------------------------------------------------------------------


def test_asap(tmp_path):
    tumour, dot = read(tmp_path, ASAP)
    assert (tumour.class_name, tumour.colour, tumour.name) == ("Tumor", (0x64, 0xFE, 0x2E), "Annotation 0")
    hole = shapely.Polygon([(20, 20), (30, 20), (30, 30)])
    expected = shapely.Polygon([(10, 10), (60.5, 10), (60, 50), (10, 50)]).difference(hole)
    assert tumour.geometry.equals(expected)
    assert (dot.class_name, dot.geometry) == (None, shapely.Point(5, 6))


def test_imagescope(tmp_path):
    gland, island, ellipse, box = read(tmp_path, IMAGESCOPE)
    assert (gland.class_name, gland.colour, gland.name) == ("Gland", (0, 255, 0), "first")
    assert len(gland.geometry.interiors) == 1
    assert gland.geometry.area == 2010 - 50
    assert (island.name, island.geometry.area) == ("island", 2)
    assert (ellipse.class_name, ellipse.colour) == ("Vessel", (255, 0, 0))
    assert ellipse.geometry.area == pytest.approx(math.pi * 20 * 10, rel=1e-3)
    assert box.geometry.equals(shapely.box(200, 100, 240, 120))


@pytest.mark.parametrize("flavour", ["asap", "imagescope"])
def test_xml_of_other_programs_comes_back_with_holes_classes_and_colours(tmp_path, flavour):
    big = shapely.Polygon(RING, [HOLE, [(40, 20), (50, 20), (50, 40)]])
    fills = shapely.Polygon(HOLE)  # another class that fills a hole must not be cut out itself
    island = shapely.box(43, 22, 44, 23)
    shapes = [
        AnnotationShape(big, "Tumor", (200, 10, 3), "one"),
        AnnotationShape(fills, "Stroma", (1, 250, 77), "two"),
        AnnotationShape(shapely.box(48, 22, 49, 23), "Tumor", (200, 10, 3), "island"),
        AnnotationShape(
            shapely.MultiPolygon([island, shapely.box(200, 0, 230, 9)]), "Stroma", (1, 250, 77), "x"
        ),
    ]
    write_annotations(tmp_path / "a.xml", shapes, xml=flavour, mpp=(0.25, 0.25))
    again = read_annotations(tmp_path / "a.xml")
    assert len(again) == 5  # the multipolygon is now two
    for shape in shapes:
        same = [other for other in again if other.name == shape.name]
        assert {(other.class_name, other.colour) for other in same} == {(shape.class_name, shape.colour)}
        assert shapely.union_all([other.geometry for other in same]).equals(shape.geometry)
    text = (tmp_path / "a.xml").read_text()
    if flavour == "imagescope":
        assert f'LineColor="{200 + 256 * 10 + 65536 * 3}"' in text
        assert text.count('NegativeROA="1"') == 2
        assert f'AreaMicrons="{fills.area / 16:.1f}"' in text
    else:
        assert 'Name="Tumor hole" PartOfGroup="Tumor"' in text


@pytest.mark.parametrize("name", ["a.geojson", "asap.xml", "imagescope.xml"])
def test_names_of_any_kind_can_be_written(tmp_path, name):
    shapes = [AnnotationShape(shapely.box(0, 0, 9, 9), 'Tumor "α" <b> & more', None, "line 1\x00\ud800")]
    write_annotations(tmp_path / name, shapes, xml=name.partition(".")[0] if name != "a.geojson" else "asap")
    (again,) = read_annotations(tmp_path / name)
    assert again.class_name == shapes[0].class_name
    assert again.name.startswith("line 1")


def test_lines_and_points_survive_xml(tmp_path):
    shapes = [
        AnnotationShape(shapely.LineString([(1, 2), (30, 40)]), "a"),
        AnnotationShape(shapely.Point(7, 8), "a"),
        AnnotationShape(shapely.MultiPoint([(7, 8), (9, 10)]), None),
    ]
    write_annotations(tmp_path / "a.xml", shapes)
    assert [shape.geometry for shape in read_annotations(tmp_path / "a.xml")] == [s.geometry for s in shapes]


# -- where files lie ---------------------------------------------------------------------------------


class Scanned:
    """A slide that says which part of it was scanned, as MRXS does."""

    bounds = (2000, 1000, 500, 600)


def test_files_that_count_from_the_scanned_area_are_moved(tmp_path):
    origin = bounds_origin(Scanned())
    assert origin == (2000, 1000)
    shapes = read(tmp_path, json.dumps(QUPATH), "a.geojson", origin=origin)
    assert shapes[0].geometry.bounds == (1010, 2010, 1060, 2050)
    write_annotations(tmp_path / "b.geojson", shapes, origin=origin)
    assert json.loads((tmp_path / "b.geojson").read_bytes()) == QUPATH


def test_a_file_beside_the_slide_is_found_and_opened(tmp_path):
    with open_slide("synthetic:300x200") as slide:
        from PIL import Image

        Image.fromarray(slide.read(0, 0, 0, 200, 300)).save(tmp_path / "case 7.png")
        assert bounds_origin(slide) == (0, 0)
        assert find_annotation(slide) is None
    with open_slide(tmp_path / "case 7.png") as slide:
        assert find_annotation(slide) is None
        write_annotations(tmp_path / "case 7.xml", [AnnotationShape(shapely.box(10, 10, 50, 50), "gland")])
        assert find_annotation(slide) == tmp_path / "case 7.xml"
        write_annotations(tmp_path / "case 7.geojson.gz", read_annotations(tmp_path / "case 7.xml"))
        annotation = open_annotation(find_annotation(slide), slide)
        assert annotation.source.endswith("case 7.geojson.gz")
        assert annotation.classes == ("background", "gland")
        assert int((np.asarray(annotation.levels[0]) == 1).sum()) == 1600


# -- bad input ---------------------------------------------------------------------------------------

BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbb">]><Annotations><Annotation>&b;</Annotation></Annotations>'


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.geojson", json.dumps(QUPATH)[:400], "truncated or damaged: it is no JSON"),
        ("a.geojson", "[" * 100_000, "truncated or damaged: it is no JSON"),
        ("a.geojson", b"\xff\xfe{}", "neither GeoJSON nor XML"),
        ("a.geojson", '{"type": "Topology"}', "no GeoJSON"),
        ("a.geojson", '{"mpp": 0.25}', "no GeoJSON"),
        ("a.geojson", "[1, 2, 3]", "no GeoJSON"),
        ("a.geojson", "", "is empty"),
        ("a.geojson", "hello", "neither GeoJSON nor XML"),
        ("a.geojson.gz", gzip.compress(json.dumps(QUPATH).encode(), mtime=0)[:-20], "cannot be unpacked"),
        ("a.geojson.gz", gzip.compress(b"x" * 1000, mtime=0)[:10] + b"\x99" * 50, "cannot be unpacked"),
        ("a.geojson", '{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}', "Feature 1 of a.geojson is malformed"),
        ("a.geojson", '{"type": "Polygon", "coordinates": []}', "Feature 1 of a.geojson is malformed"),
        ("a.geojson", '{"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [2, NaN]]]}', "no finite number"),
        ("a.geojson", '{"type": "Polygon", "coordinates": [[[0, 0], ["a", 1], [2, 2]]]}', "malformed"),
        ("a.geojson", '{"type": "Feature", "geometry": 3, "properties": 4}', "malformed"),
        ("a.geojson", '{"type": "Feature", "geometry": {"type": "Curve", "coordinates": []}}', "'Curve' are not known"),
        ("a.xml", ASAP[:900], "no well-formed XML"),
        ("a.xml", IMAGESCOPE.replace("UTF-8", "UTF-9").encode(), "no well-formed XML"),
        ("a.geojson", '{"type": "Feature", "properties": {"name": 3}, "geometry": {}}', "malformed"),
        ("a.xml", BOMB, "document type or entities"),
        ("a.xml", "<html><body/></html>", "neither of ASAP"),
        ("a.xml", ASAP.replace('X="20"', 'X="twenty"'), "no proper X and Y"),
        ("a.xml", IMAGESCOPE.replace('X="60.5"', 'X="inf"'), "no finite place"),
        ("a.xml", IMAGESCOPE.replace('X="60.5"', ""), "no proper X and Y"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused_in_plain_words(tmp_path, name, content, sentence):
    with pytest.raises(SlideError, match=sentence):
        read(tmp_path, content, name)


def test_sizes_are_bounded(tmp_path, monkeypatch):
    text = json.dumps(QUPATH)
    monkeypatch.setattr(bounded, "MAX_BYTES", 2**20)
    with pytest.raises(SlideError, match="more than 1 MB"):
        read(tmp_path, text + " " * 2**20, "a.geojson")
    with pytest.raises(SlideError, match="more than 1 MB"):
        read(tmp_path, gzip.compress(text.encode() + b" " * 2**24), "a.geojson.gz")
    monkeypatch.setattr(model, "MAX_VERTICES", 7)
    for name, content in (("a.geojson", text), ("a.xml", ASAP), ("b.xml", IMAGESCOPE)):
        with pytest.raises(SlideError, match="more than 7 corners"):
            read(tmp_path, content, name)


def test_places_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(SlideError, match="no annotation file at"):
        read_annotations(tmp_path / "missing.geojson")
    with pytest.raises(OutputError, match="says no format"):
        write_annotations(tmp_path / "a.txt", [])
    (tmp_path / "a file").write_text("")
    with pytest.raises(OutputError, match="could not be written"):
        write_annotations(tmp_path / "a file" / "a.geojson", [])
