"""Files of annotations as other programs than QuPath leave them: read as they are meant, and what was decided is said.

The right values are those that were written into the files, told by json and shapely.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely

from napari_kdseg.slides import (
    AnnotationShape,
    SlideError,
    open_annotation,
    open_slide,
    read_annotations,
    write_annotations,
)

SQUARE = [[50, 50], [150, 50], [150, 150], [50, 150], [50, 50]]
OTHER = [[250, 50], [350, 50], [350, 150], [250, 150], [250, 50]]
TUMOUR = {"name": "Tumor", "color": [200, 0, 0]}
SCANNED = "synthetic:600x500?mpp=0.5&bounds=120,80,400,300"
"""Its scanned area begins at x = 120, y = 80."""


def feature(ring, **properties):
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
    }


def read(tmp_path, *features, encoding="utf-8", name="a.geojson", **options):
    content = json.dumps({"type": "FeatureCollection", "features": features}, ensure_ascii=False)
    (tmp_path / name).write_bytes(content.encode(encoding))
    return read_annotations(tmp_path / name, **options)


# -- classes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["type", "class_name", "label"])
def test_a_class_in_another_property(tmp_path, key):
    shapes = read(tmp_path, feature(SQUARE, **{key: "Tumor"}), feature(OTHER, **{key: "Stroma"}))
    assert [shape.class_name for shape in shapes] == ["Tumor", "Stroma"]
    assert repr(key) in shapes.notes[0]


def test_what_may_be_a_class_is_asked_about(tmp_path):
    shapes = read(tmp_path, feature(SQUARE, tissue="a"), feature(OTHER, tissue="b"))
    assert [shape.class_name for shape in shapes] == [None, None]
    assert "'tissue' differ" in shapes.notes[0]


def test_where_qupath_says_a_class_other_properties_are_none(tmp_path):
    shapes = read(tmp_path, feature(SQUARE, classification=TUMOUR, type="x"), feature(OTHER, type="y"))
    assert [shape.class_name for shape in shapes] == ["Tumor", None]
    assert not shapes.notes


@pytest.mark.parametrize("text", [json.dumps, repr])
def test_a_classification_that_became_text(tmp_path, text):
    (shape,) = read(tmp_path, feature(SQUARE, classification=text(TUMOUR)))
    assert (shape.class_name, shape.colour) == ("Tumor", (200, 0, 0))


IMAGESCOPE = """<Annotations MicronsPerPixel="0.5"><Annotation Id="1" Name="" LineColor="255"><Regions>{}</Regions>
</Annotation></Annotations>"""
REGION = """<Region Type="0" Text="{}"><Vertices><Vertex X="{}" Y="50"/><Vertex X="{}" Y="50"/><Vertex X="{}" Y="150"/>
</Vertices></Region>"""


@pytest.mark.parametrize(
    ("texts", "classes", "note"),
    [
        (("Mitosis", "Nonmitosis"), ["Mitosis", "Nonmitosis"], "the class of each region is its text"),
        (("Mitosis", ""), ["layer 1", "layer 1"], "all are one class"),
        (("", ""), ["layer 1", "layer 1"], None),
    ],
)
def test_the_text_of_regions_in_a_layer_without_a_name(tmp_path, texts, classes, note):
    regions = [REGION.format(text, x, x + 100, x + 100) for text, x in zip(texts, (50, 250), strict=True)]
    (tmp_path / "a.xml").write_text(IMAGESCOPE.format("".join(regions)))
    shapes = read_annotations(tmp_path / "a.xml")
    assert [shape.class_name for shape in shapes] == classes
    assert (note in shapes.notes[0]) if note else not shapes.notes


# -- odd features ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "Polygon", "coordinates": [[[5, 5], [6, 5]]]},
        {"type": "Polygon", "coordinates": [[[5, 5], [6, 5], [7, 5], [5, 5]]]},
        {"type": "Polygon", "coordinates": []},
        {"type": "MultiPolygon", "coordinates": []},
        {"type": "Polygon", "coordinates": [[[5, 5], [6, None], [7, 8], [5, 5]]]},
        {"type": "GeometryCollection", "geometries": []},
        {"type": "Curve", "coordinates": [[1, 2]]},
        {"coordinates": [SQUARE]},
        "nowhere",
    ],
)
def test_one_odd_feature_is_left_out_and_counted(tmp_path, geometry):
    odd = {"type": "Feature", "geometry": geometry, "properties": {}}
    shapes = read(
        tmp_path, feature(SQUARE, classification=TUMOUR), odd, feature(OTHER, classification=TUMOUR)
    )
    assert [np.asarray(shape.geometry.exterior.coords).tolist() for shape in shapes] == [SQUARE, OTHER]
    assert shapes.notes[0].startswith("1 of 3 features of a.geojson left out: number 2 (")


def test_what_is_no_feature_among_features(tmp_path):
    shapes = read(tmp_path, feature(SQUARE, classification=TUMOUR), {"type": "Topology"})
    assert len(shapes) == 1
    assert "number 2" in shapes.notes[0]


def test_colours_in_hex_and_numbers_as_names(tmp_path):
    (shape,) = read(tmp_path, feature(SQUARE, classification={"name": 3, "color": "#00c80a"}, name=17))
    assert (shape.class_name, shape.colour, shape.name) == ("3", (0, 200, 10), "17")


def test_a_collection_of_areas_is_one_object(tmp_path):
    parts = [{"type": "Polygon", "coordinates": [ring]} for ring in (SQUARE, OTHER)]
    collection = {"type": "GeometryCollection", "geometries": parts}
    (shape,) = read(tmp_path, {"type": "Feature", "geometry": collection, "properties": {}})
    assert shapely.equals(
        shape.geometry, shapely.MultiPolygon([shapely.Polygon(SQUARE), shapely.Polygon(OTHER)])
    )


# -- encodings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "note"),
    [("cp1252", "Windows-1252"), ("utf-16", "UTF-16"), ("utf-8-sig", None), ("utf-8", None)],
)
def test_other_encodings(tmp_path, encoding, note):
    shapes = read(tmp_path, feature(SQUARE, classification={"name": "Tumör"}), encoding=encoding)
    assert shapes[0].class_name == "Tumör"
    assert (note in shapes.notes[0]) if note else not shapes.notes


@pytest.mark.parametrize(
    ("declared", "encoding", "note"),
    [
        ("UTF-8", "cp1252", True),
        ("ISO-8859-1", "latin-1", False),
        ("UTF-16", "utf-16", True),
        (None, "cp1252", True),
    ],
)
def test_other_encodings_of_xml(tmp_path, declared, encoding, note):
    start = f'<?xml version="1.0" encoding="{declared}"?>\n' if declared else ""
    content = start + IMAGESCOPE.format(REGION.format("Drüse", 50, 150, 150))
    (tmp_path / "a.xml").write_bytes(content.encode(encoding))
    shapes = read_annotations(tmp_path / "a.xml")
    assert shapes[0].class_name == "Drüse"
    assert any("read as" in each for each in shapes.notes) == note


def test_damaged_utf8_is_not_taken_for_windows(tmp_path):
    content = json.dumps(
        feature(SQUARE, name="Tumör", classification={"name": "Drüse"}), ensure_ascii=False
    ).encode()
    (tmp_path / "a.geojson").write_bytes(content.replace("ö".encode(), "ö".encode()[:1]))
    with pytest.raises(SlideError, match="truncated or damaged"):
        read_annotations(tmp_path / "a.geojson")


# -- from where a file counts ----------------------------------------------------------------------------------------


def test_a_nucleus_moves_with_its_cell(tmp_path):
    cell = feature(SQUARE, objectType="cell") | {
        "nucleusGeometry": {"type": "Polygon", "coordinates": [SQUARE]}
    }
    with open_slide(SCANNED) as slide:
        shapes = read(tmp_path, cell, slide=slide)
        write_annotations(tmp_path / "b.geojson", shapes, slide=slide, bounds=False)
    moved = json.loads((tmp_path / "b.geojson").read_text())["features"][0]
    wanted = (np.array(SQUARE) + (120, 80)).tolist()
    assert moved["geometry"]["coordinates"] == [wanted]
    assert np.array(moved["nucleusGeometry"]["coordinates"]).tolist() == [wanted]


@pytest.mark.parametrize(("name", "usual"), [("a.geojson", True), ("a.xml", False)])
@pytest.mark.parametrize("bounds", [None, True, False])
def test_files_count_from_the_scanned_area_as_their_program_does(tmp_path, name, usual, bounds):
    """QuPath shows the scanned area only and counts from its corner; ASAP and ImageScope show the slide."""
    shift = (120, 80) if (usual if bounds is None else bounds) else (0, 0)
    with open_slide(SCANNED) as slide:
        assert slide.bounds == (80, 120, 300, 400)
        write_annotations(tmp_path / name, [AnnotationShape(shapely.Polygon(SQUARE), "a")])
        found = read_annotations(tmp_path / name, slide=slide, bounds=bounds)
        wanted = shapely.Polygon(np.array(SQUARE) + shift)
        assert shapely.equals(found[0].geometry, wanted)
        corner = "(120, 80)" if any(shift) else "corner of the slide"
        assert corner in found.notes[-1]
        annotation = open_annotation(tmp_path / name, slide, bounds=bounds)
        assert annotation.notes == found.notes
        left, top, right, bottom = (int(value) for value in wanted.bounds)
        mask = annotation.read_scaled(1, 0, 0, *slide.shape)
        assert mask.sum() == mask[top:bottom, left:right].sum() == 100 * 100
        write_annotations(tmp_path / f"again-{name}", found, slide=slide, bounds=bounds)
        (again,) = read_annotations(tmp_path / f"again-{name}")
        assert shapely.equals(again.geometry, shapely.Polygon(SQUARE))


def test_the_scanned_area_is_no_part_of_the_pixels():
    plain, scanned = (open_slide(address) for address in (SCANNED.partition("&")[0], SCANNED))
    assert plain.identity() == scanned.identity()
    assert plain.bounds is None


@pytest.mark.parametrize("said", ["1,2,3", "500,0,200,10", "0,0,0,10", "a,b,c,d"])
def test_a_scanned_area_off_the_slide(said):
    with pytest.raises(SlideError, match="does not name a synthetic slide"):
        open_slide(f"synthetic:600x500?bounds={said}")
