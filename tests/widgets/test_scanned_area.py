"""Annotations of a slide that says which part of it was scanned: QuPath counts from the corner of that part."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely

from napari_kdseg.slides import AnnotationShape, open_slide, write_annotations
from napari_kdseg.widgets import binding as layers
from napari_kdseg.widgets.binding import session_of
from napari_kdseg.widgets.layers.annotation_shapes import layer_to_shapes

WAIT = 20_000
SCANNED = "synthetic:600x500?mpp=0.5&bounds=120,80,400,300"
SQUARE = shapely.box(50, 50, 150, 150)
MOVED = shapely.box(170, 130, 270, 230)


@pytest.fixture
def file(tmp_path):
    """As QuPath writes it: one square, counted from the scanned area."""
    write_annotations(tmp_path / "a.geojson", [AnnotationShape(SQUARE, "gland")])
    return tmp_path / "a.geojson"


@pytest.fixture
def box(viewer, dock, qtbot):
    """The annotations of the dock 1 Slide, with the slide opened and nothing laid over it."""
    opened = dock("1 Slide")
    session_of(viewer).open_slide(SCANNED)
    qtbot.waitUntil(lambda: session_of(viewer).masks_path() is not None, timeout=WAIT)
    return opened.annotations


def covered(viewer):
    """What the layer of the annotation covers, as a box in level-0 pixels."""
    layer = layers.find(viewer, "annotation")
    rows, columns = np.nonzero(np.asarray(layer.data[0]) == 1)
    return shapely.box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_the_dock_shows_and_edits_where_it_lies_and_writes_it_back(viewer, qtbot, box, file, tmp_path):
    session = session_of(viewer)
    assert box.bounds.isVisibleTo(box)
    box.open(str(file))
    qtbot.waitUntil(lambda: session.annotation == str(file), timeout=WAIT)
    assert shapely.equals(covered(viewer), MOVED)
    assert "scanned area (120, 80)" in box.note.text()
    assert box.bounds.isChecked()
    box.edit_shapes()
    qtbot.waitUntil(lambda: layers.find(viewer, "shapes") is not None, timeout=WAIT)
    (shape,) = layer_to_shapes(layers.find(viewer, "shapes"), session.slide.mpp)
    assert shapely.equals(shape.geometry, MOVED)
    box.save_to(str(tmp_path / "b.geojson"))
    qtbot.waitUntil(lambda: session.annotation == str(tmp_path / "b.geojson"), timeout=WAIT)
    (written,) = json.loads((tmp_path / "b.geojson").read_text())["features"]
    assert shapely.equals(shapely.geometry.shape(written["geometry"]), SQUARE)
    assert shapely.equals(covered(viewer), MOVED)


def test_a_person_may_say_otherwise_and_every_dock_does_so(
    viewer, dock, qtbot, box, file, monkeypatch, network
):
    from napari_kdseg.training.tiles import patches
    from napari_kdseg.widgets.state.loaded_models import read_model

    session = session_of(viewer)
    box.open(str(file))
    qtbot.waitUntil(lambda: session.annotation == str(file), timeout=WAIT)
    box.bounds.click()
    qtbot.waitUntil(lambda: session.annotation_bounds is False, timeout=WAIT)
    assert shapely.equals(covered(viewer), SQUARE)
    assert "corner of the slide" in box.note.text()
    session.set_model("teacher", read_model(network(2)))
    asked = []
    monkeypatch.setattr(session, "start", lambda kind, title, job, config: asked.append(config))
    dock("4 Compare").corrections.start()
    assert asked[0].annotation_bounds is False
    cut = []
    monkeypatch.setattr(patches, "cut_tiles", lambda slide, annotation, folder: cut.append(annotation))
    distil = dock("3 Distil")
    monkeypatch.setattr(distil, "look_at_data", lambda folder: None)
    distil.cut_tiles()
    qtbot.waitUntil(lambda: bool(cut), timeout=WAIT)
    mask = cut[0].read_scaled(1, 0, 0, 500, 600)
    assert mask[50:150, 50:150].all()
    assert mask.sum() == 100 * 100


def test_a_slide_that_says_nothing_is_not_asked_about(viewer, dock, qtbot):
    box = dock("1 Slide").annotations
    session_of(viewer).open_slide(SCANNED.partition("&")[0])
    qtbot.waitUntil(lambda: session_of(viewer).masks_path() is not None, timeout=WAIT)
    assert not box.bounds.isVisibleTo(box)
    with open_slide(SCANNED) as slide:
        assert slide.bounds is not None
