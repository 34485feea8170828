"""Annotations as layers: what is not touched comes back equal, what is edited comes back edited."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from napari.layers import Labels, Shapes
from napari.utils import DirectLabelColormap

from napari_kdseg.errors import SlideError
from napari_kdseg.slides import (
    AnnotationShape,
    open_annotation,
    open_slide,
    read_annotations,
    write_annotations,
)
from napari_kdseg.widgets.layers.annotation_masks import labels_to_shapes
from napari_kdseg.widgets.layers.annotation_shapes import layer_to_shapes, shapes_to_layer

MPP = (0.25, 0.252)
RING = [[80010.123456789, 10], [80060, 10.25], [80060, 50], [80010, 50], [80010.123456789, 10]]
HOLE = [[80020, 20], [80030, 20], [80030, 30], [80020, 30], [80020, 20]]
HOLE2 = [[80040, 20], [80050, 20], [80050, 30], [80040, 20]]
FAR = [[[100, 100], [140, 100], [140, 140], [100, 100]]]


def feature(kind, coordinates, more=None, **properties):
    geometry = {"type": kind, "coordinates": coordinates}
    return {
        "type": "Feature",
        **(more or {}),
        "geometry": geometry,
        "properties": {"objectType": "annotation", **properties},
    }


DRAWN = [
    feature(
        "Polygon",
        [RING, HOLE, HOLE2],
        {"id": "0d17b2ab-dc6b-4a32-8fbf-6d0ea8cde4ff"},
        name="one",
        classification={"name": "Tumor", "color": [200, 0, 7]},
        isLocked=True,
        measurements={"Area": 3.5, "Perimeter": None},
    ),
    feature("MultiPolygon", [[RING, HOLE], FAR], classification={"name": "Immune cells"}),
    feature("Point", [3.1, 4.7], classification={"name": "Positive"}),
    feature("LineString", [[1, 2], [3.5, 4], [9, 9.1]]),
    feature("Polygon", FAR),
]


@pytest.fixture
def drawn(tmp_path) -> list[AnnotationShape]:
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": DRAWN}))
    return read_annotations(tmp_path / "a.geojson")


def layer_of(shapes, mpp=MPP) -> Shapes:
    data, options, kind = shapes_to_layer(shapes, mpp)
    assert kind == "shapes"
    return Shapes(data, **options)


@pytest.mark.parametrize("mpp", [MPP, None])
def test_geojson_shapes_geojson_is_equal(drawn, tmp_path, mpp):
    layer = layer_of(drawn, mpp)
    assert (
        len(layer.data) == 3 + 3 + 1 + 1
    )  # rings, holes as shapes of their own; the point waits in the metadata
    again = layer_to_shapes(layer, mpp)
    assert again == drawn
    write_annotations(tmp_path / "b.geojson", again)
    assert json.loads((tmp_path / "b.geojson").read_bytes())["features"] == DRAWN


def test_outlines_lie_on_the_corners_of_pixels():
    layer = layer_of([AnnotationShape(shapely.box(0, 0, 1, 1), "first pixel")])
    corners = np.array([layer.data_to_world(corner) for corner in layer.data[0]])
    np.testing.assert_allclose(corners.min(axis=0), [-MPP[0] / 2, -MPP[1] / 2], equal_nan=False)
    np.testing.assert_allclose(corners.max(axis=0), [MPP[0] / 2, MPP[1] / 2], equal_nan=False)
    assert [str(unit) for unit in layer.units] == ["micrometer", "micrometer"]


def row_of(layer, ring) -> int:
    return list(layer.features["ring"]).index(ring)


def test_a_dragged_corner_changes_its_ring_only(drawn):
    layer = layer_of(drawn)
    data = layer.data
    row = row_of(layer, "0.0.1")
    data[row] = data[row] + [[0, 0], [0, 0], [2, 2], [0, 0]]
    layer.data = data
    first, *others = layer_to_shapes(layer, MPP)
    assert others == drawn[1:]
    assert (first.identifier, first.class_name, first.locked) == (drawn[0].identifier, "Tumor", True)
    assert first.geometry.exterior.equals(drawn[0].geometry.exterior)
    assert shapely.get_coordinates(first.geometry)[0].tolist() == RING[0]
    changed = first.geometry.symmetric_difference(drawn[0].geometry)
    assert 0 < changed.area <= 20
    assert "measurements" not in first.extra.get("properties", {})


def test_deleted_rings_go_and_a_hole_goes_with_its_outline(drawn):
    layer = layer_of(drawn)
    layer.selected_data = {row_of(layer, ring) for ring in ("0.0.2", "1.0.0", "4.0.0")}
    layer.remove_selected()
    again = layer_to_shapes(layer, MPP)
    assert len(again) == 4
    assert again[0].geometry.equals(shapely.Polygon(RING, [HOLE]))
    assert again[1].geometry.equals(shapely.Polygon(FAR[0]))


def test_drawn_pasted_and_renamed_shapes(drawn):
    layer = layer_of(drawn)
    layer.feature_defaults = layer.features.iloc[
        row_of(layer, "0.0.1")
    ].to_dict()  # as napari does for a selection
    layer.add_polygons(np.array([[200, 200], [200, 260], [260, 260]]))
    layer.add_ellipses(np.array([[300, 300], [300, 340], [320, 340], [320, 300]]))
    classes = list(layer.features["class"])
    classes[-1] = "Vessel"
    classes[row_of(layer, "4.0.0")] = "Tumor"
    layer.features["class"] = classes
    again = layer_to_shapes(layer, MPP)
    assert again[:4] == drawn[:4]
    assert (again[4].class_name, again[4].colour) == ("Tumor", (200, 0, 7))
    polygon, ellipse = again[5:]
    assert polygon.geometry.equals(shapely.Polygon([(200, 200), (260, 200), (260, 260)]))
    assert (polygon.class_name, polygon.colour, polygon.identifier) == ("Tumor", (200, 0, 7), None)
    assert ellipse.class_name == "Vessel"
    assert ellipse.geometry.area == pytest.approx(np.pi * 20 * 10, rel=1e-3)


def test_what_is_drawn_after_a_hole_was_deleted_is_no_hole(drawn):
    layer = layer_of(drawn)
    layer.selected_data = {row_of(layer, "0.0.1")}
    layer.remove_selected()
    layer.feature_defaults = {"class": "Tumor", "name": "", "locked": False, "ring": "0.0.1"}
    layer.add_polygons(np.array([[200, 200], [200, 260], [260, 260]]))
    again = layer_to_shapes(layer, MPP)
    assert len(again) == 6
    assert again[0].geometry.equals(shapely.Polygon(RING, [HOLE2]))
    assert again[5].geometry.area == 1800


def test_colours_given_in_napari_come_along(drawn):
    layer = layer_of(drawn)
    edges = np.array(layer.edge_color)
    edges[row_of(layer, "4.0.0")] = [0, 0, 1, 1]
    layer.edge_color = edges
    again = layer_to_shapes(layer, MPP)
    assert again[4].colour == (0, 0, 255)
    assert again[:4] == drawn[:4]


def test_a_layer_of_somebody_else_is_read_where_it_lies():
    layer = Shapes(
        [np.array([[10, 20], [10, 40], [30, 40]])], shape_type="polygon", scale=MPP, translate=(5 * MPP[0], 0)
    )
    (shape,) = layer_to_shapes(layer, MPP)
    # napari counts from the centre of pixel 0, the slide from its corner
    expected = shapely.Polygon([(20.5, 15.5), (40.5, 15.5), (40.5, 35.5)])
    assert shape.geometry.equals_exact(expected, 1e-6)
    assert shape.class_name is None


def test_nothing_drawn_is_an_empty_layer_to_draw_in():
    layer = layer_of([])
    assert layer_to_shapes(layer, MPP) == []
    layer.add_rectangles(np.array([[0, 0], [0, 10], [10, 10], [10, 0]]))
    (shape,) = layer_to_shapes(layer, MPP)
    assert shape.geometry.equals(shapely.box(0, 0, 10, 10))


# -- labels ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slide():
    with open_slide("synthetic:1200x900?mpp=0.25") as slide:
        yield slide


def painted(shape=(900, 1200)) -> np.ndarray:
    random = np.random.default_rng(2)
    return np.kron(random.integers(0, 4, (shape[0] // 10, shape[1] // 10)), np.ones((10, 10), int))


def test_labels_come_back_with_the_names_and_colours_of_the_layer(slide):
    shapes = [
        AnnotationShape(shapely.box(10, 20, 110, 220), "gland", (1, 2, 3)),
        AnnotationShape(shapely.box(300, 300, 400, 330), "vessel"),
    ]
    annotation = open_annotation(shapes, slide)
    table = {"index": range(3), "class": annotation.classes}
    black = (0, 0, 0, 1)
    colours = DirectLabelColormap(color_dict={None: black, 1: np.array([1, 2, 3, 255]) / 255, 2: black})
    layer = Labels(
        annotation.read_scaled(1, 0, 0, 900, 1200), colormap=colours, features=table, scale=slide.mpp
    )
    again = labels_to_shapes(layer, slide)
    assert [(shape.class_name, shape.geometry.bounds) for shape in again] == [
        ("gland", (10, 20, 110, 220)),
        ("vessel", (300, 300, 400, 330)),
    ]
    assert again[0].colour == (1, 2, 3)


@pytest.mark.parametrize("downsample", [1, 2, 3])
def test_painted_labels_come_back_as_painted(slide, downsample):
    labels = painted((900 // downsample, 1200 // downsample))
    scale = np.array(slide.mpp) * downsample
    translate = (downsample - 1) / 2 * np.array(slide.mpp)
    layer = Labels(labels, scale=scale, translate=translate)
    shapes = labels_to_shapes(layer, slide, classes=("background", "a", "b", "c"))
    annotation = open_annotation(shapes, slide, classes=("background", "a", "b", "c"))
    np.testing.assert_array_equal(annotation.read_scaled(downsample, 0, 0, *labels.shape), labels)


def test_a_painted_region_lies_where_it_was_painted(slide):
    labels = np.zeros((40, 50), np.uint16)
    labels[10:20, 5:9] = 3
    layer = Labels(labels, scale=slide.mpp, translate=np.array([100, 200]) * slide.mpp)
    (shape,) = labels_to_shapes(layer, slide)
    assert shape.geometry.bounds == (205, 110, 209, 120)
    assert shape.class_name == "class 3"


def test_labels_that_are_turned_are_refused(slide):
    with pytest.raises(SlideError, match="turned"):
        labels_to_shapes(Labels(np.ones((5, 5), int), rotate=30), slide)


def test_layers_in_a_window(viewer, drawn, tmp_path: Path):
    data, options, _ = shapes_to_layer(drawn, MPP)
    layer = viewer.add_shapes(data, **options)
    again = layer_to_shapes(layer, MPP)
    assert again == drawn


def test_a_nucleus_is_dragged_with_its_cell(tmp_path):
    ring = [[50, 50], [150, 50], [150, 150], [50, 150], [50, 50]]
    polygon = {"type": "Polygon", "coordinates": [ring]}
    cell = {
        "type": "Feature",
        "geometry": polygon,
        "nucleusGeometry": polygon,
        "properties": {"objectType": "cell"},
    }
    (tmp_path / "a.geojson").write_text(json.dumps(cell))
    data, options, _ = shapes_to_layer(read_annotations(tmp_path / "a.geojson"), (0.5, 0.5))
    layer = Shapes(data, **options)
    layer.data = [corners + (7, 3) for corners in layer.data]  # (y, x) in pixels
    (shape,) = layer_to_shapes(layer, (0.5, 0.5))
    wanted = np.array(ring) + (3, 7)
    np.testing.assert_allclose(
        np.array(shape.extra["feature"]["nucleusGeometry"]["coordinates"][0]), wanted, equal_nan=False
    )
    layer.data = [
        corners * (1, 1.5) for corners in layer.data
    ]  # drawn otherwise: the nucleus is where it was
    (shape,) = layer_to_shapes(layer, (0.5, 0.5))
    assert shape.extra["feature"]["nucleusGeometry"] == polygon
