"""The Slide dock: finding one's way, the scale, colours, tissue, and what may name the patient."""

from __future__ import annotations

import shutil

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QMessageBox

from napari_kdseg.slides import open_slide
from napari_kdseg.slides.annotations.suffixes import ANNOTATION_SUFFIXES, WRITTEN
from napari_kdseg.slides.tissue.kept import kept_tissue
from napari_kdseg.widgets import binding as layers
from napari_kdseg.widgets.binding import session_of
from napari_kdseg.widgets.layers.magnification import corner_text as status_line
from napari_kdseg.widgets.layers.magnification import in_words
from napari_kdseg.widgets.slide_dock.annotation_box import OPEN_PATTERNS, SAVE_FORMATS

WAIT = 20_000


@pytest.fixture
def picture(tmp_path):
    """An Adobe RGB picture of 800 x 600 px without a scale: a pink square on white."""
    pixels = np.full((600, 800, 3), 250, np.uint8)
    pixels[200:400, 100:400] = (200, 80, 150)
    path = tmp_path / "biopsy.png"
    Image.fromarray(pixels).save(path, icc_profile=imagecodecs.cms_profile("adobergb"))
    return path


@pytest.fixture
def opened(viewer, dock, qtbot):
    """Open a slide in the dock and return the dock."""

    def open_it(path):
        slide_dock = dock("1 Slide")
        slide_dock.open(str(path))
        session = session_of(viewer)
        qtbot.waitUntil(
            lambda: slide_dock.thumbnail.isVisible() and session.slide_identity is not None,
            timeout=WAIT,
        )
        return slide_dock

    return open_it


def test_scale_is_asked_for_kept_and_never_guessed(viewer, opened, qtbot, picture):
    slide_dock = opened(picture)
    scale = slide_dock.scale
    assert "does not say how large" in scale.note.text()
    assert not scale.use.isEnabled()
    assert not slide_dock.presets[10].isEnabled()
    assert str(layers.find(viewer, "slide").units[0]) == "pixel"
    scale.scanners.setCurrentIndex(1)
    scale.scanners.activated.emit(1)
    assert session_of(viewer).slide.mpp is None
    scale.mpp.setValue(0.5)
    scale.use.click()
    session = session_of(viewer)
    qtbot.waitUntil(lambda: session.slide.mpp == (0.5, 0.5), timeout=WAIT)
    layer = layers.find(viewer, "slide")
    assert str(layer.units[0]) == "micrometer"
    assert tuple(layer.scale) == (0.5, 0.5)
    assert slide_dock.presets[10].isEnabled()
    assert open_slide(picture).mpp == (0.5, 0.5)


def test_thumbnail_goes_there_and_shows_where(viewer, opened, qtbot, picture):
    slide_dock = opened(picture)
    place = slide_dock.thumbnail.picture_rectangle()
    at = QPoint(int(place.x() + 0.75 * place.width()), int(place.y() + 0.25 * place.height()))
    qtbot.mouseClick(slide_dock.thumbnail, Qt.MouseButton.LeftButton, pos=at)
    y, x = viewer.scene.camera.center[-2:]
    assert (y, x) == pytest.approx((150, 600), abs=8)
    viewer.scene.camera.zoom = 4.0
    height = viewer.canvas.size[0]

    def rectangle():
        return slide_dock.thumbnail._view

    qtbot.waitUntil(lambda: rectangle()[2] == pytest.approx(height / 4 / 600, rel=0.01), timeout=WAIT)
    top, left, high, wide = rectangle()
    assert top + high / 2 == pytest.approx(0.25, abs=0.02)
    assert left + wide / 2 == pytest.approx(0.75, abs=0.02)


def test_magnification(viewer, opened, qtbot, picture):
    slide = open_slide(picture, mpp=0.25)
    assert status_line(slide, 0.5) == "5x   mpp 0.25"
    assert [in_words(m) for m in (0.084, 1.0, 2.5, 5.31, 40.2)] == ["0.08x", "1x", "2.5x", "5.3x", "40x"]
    slide_dock = opened(picture)
    session = session_of(viewer)
    session.open_slide(str(picture), mpp=0.25)
    qtbot.waitUntil(lambda: session.slide.mpp is not None, timeout=WAIT)
    slide_dock.presets[20].click()
    assert viewer.scene.camera.zoom == 2.0  # 20x: half a micrometre a screen pixel
    assert viewer.canvas.overlays.text.text == "20x   mpp 0.25"
    qtbot.waitUntil(lambda: "20x" in slide_dock.magnification_heading.text(), timeout=WAIT)
    assert "finer than the scan" not in slide_dock.presets[40].toolTip()


def test_colours_of_the_profile_are_shown_and_networks_see_the_stored_ones(viewer, opened, qtbot, picture):
    box = opened(picture).colours
    stored = np.asarray(layers.find(viewer, "slide").data[0][300, 200])
    assert "Adobe RGB" in box.colours.itemText(1)
    box.colours.setCurrentIndex(1)
    box.colours.activated.emit(1)
    layer = layers.find(viewer, "slide")
    qtbot.waitUntil(lambda: layer.metadata["kdseg_colours"] == "srgb", timeout=WAIT)
    shown = np.asarray(layer.data[0][300, 200])
    assert int(shown[0]) > int(stored[0]) + 10
    session = session_of(viewer)
    assert session.network_colours == "stored"
    box.networks.setChecked(True)
    assert session.network_colours == "srgb"
    box.colours.setCurrentIndex(0)
    box.colours.activated.emit(0)
    np.testing.assert_array_equal(np.asarray(layer.data[0][300, 200]), stored)
    assert session.network_colours == "stored"


def test_stain_view_comes_and_goes(viewer, opened, qtbot, picture):
    box = opened(picture).colours
    for index, stain in ((1, "haematoxylin"), (2, "eosin")):
        box.stain.setCurrentIndex(index)
        box.stain.activated.emit(index)
        qtbot.waitUntil(
            lambda name=stain: getattr(layers.find(viewer, "stain"), "name", "") == name, timeout=WAIT
        )
    eosin = layers.find(viewer, "stain")
    assert eosin.data[0][300, 200] > 30
    assert eosin.data[0][50, 50] < 5
    box.stain.setCurrentIndex(0)
    box.stain.activated.emit(0)
    assert layers.find(viewer, "stain") is None


def test_tissue_is_found_corrected_by_hand_and_kept(viewer, opened, qtbot, picture, monkeypatch):
    box = opened(picture).tissue
    box.find.click()
    qtbot.waitUntil(lambda: layers.find(viewer, "tissue") is not None, timeout=WAIT)
    assert "13 % of the slide" in box.note.text()  # 300 x 200 of 800 x 600 px, and a blurred rim
    box.paint.click()
    layer = layers.find(viewer, "tissue")
    assert viewer.layers.selection.active is layer
    assert layer.mode == "paint"
    layer.paint((30, 700), 1)
    asked: list[str] = []
    monkeypatch.setattr(
        QMessageBox, "question", lambda *said: asked.append(said[2]) or QMessageBox.StandardButton.No
    )
    box.find.click()
    assert "painted by hand" in asked[0]
    assert layer.data[30, 700] == 1
    box.hide_mask.click()
    assert "goes with the layer" in asked[1]
    assert layers.find(viewer, "tissue") is layer
    box.keep.click()
    qtbot.waitUntil(lambda: "Kept" in box.note.text(), timeout=WAIT)
    kept = kept_tissue(open_slide(picture))
    assert kept.mask[30, 700]
    assert kept.mask[300, 200]
    box.forget.click()
    qtbot.waitUntil(lambda: "Forgotten" in box.note.text(), timeout=WAIT)
    assert kept_tissue(open_slide(picture)) is None


def test_threshold_renews_the_mask(viewer, opened, qtbot, picture):
    box = opened(picture).tissue
    box.threshold.setValue(0.9)
    qtbot.waitUntil(lambda: "0 % of the slide" in box.note.text(), timeout=WAIT)


def test_what_may_name_the_patient_is_hidden(opened, qtbot, real_data, tmp_path):
    shutil.copyfile(real_data / "slides" / "CMU-1-Small-Region.svs", tmp_path / "cmu.svs")
    pictures = opened(tmp_path / "cmu.svs").pictures
    pictures.open(True)

    def names():
        return {pictures.table.item(line, 0).text() for line in range(pictures.table.rowCount())}

    assert "aperio.AppMag" in names()
    assert not names() & {"aperio.User", "aperio.Date", "aperio.Filename", "openslide.comment"}
    assert not pictures.pictures
    pictures.private.setChecked(True)
    qtbot.waitUntil(lambda: len(pictures.pictures) == 3, timeout=WAIT)
    assert "aperio.User" in names()
    pictures.search.setText("mpp")
    rows = range(pictures.table.rowCount())
    left = {pictures.table.item(line, 0).text() for line in rows if not pictures.table.isRowHidden(line)}
    assert left >= {"aperio.MPP", "openslide.mpp-x"}
    assert "aperio.User" not in left


def test_fluorescence_opens_as_channels_and_a_network_for_stains_is_warned_about(
    viewer, opened, real_data, tmp_path
):
    from napari_kdseg.networks import NetworkSpec
    from napari_kdseg.widgets.state.loaded_models import LoadedModel
    from napari_kdseg.widgets.state.team import misfit

    shutil.copyfile(real_data / "slides" / "test3-TRITC-560.ndpi", tmp_path / "tritc.ndpi")
    slide_dock = opened(tmp_path / "tritc.ndpi")
    assert [layer.name for layer in viewer.layers] == [f"tritc.ndpi: {c}" for c in ("red", "green", "blue")]
    assert {layer.blending for layer in viewer.layers} == {"additive"}
    assert not slide_dock.colours_fold.isVisible()
    model = LoadedModel(tmp_path / "x", NetworkSpec(architecture="enet", classes=["a", "b"], mpp=0.5), 1)
    assert "fluorescence" in misfit(session_of(viewer), "student", model)


def test_tile_cache_follows_the_preference(viewer, dock):
    from napari.settings import get_plugin_settings

    from napari_kdseg.slides.pixels.cache import default_cache
    from napari_kdseg.widgets.state.preferences import follow_cache_size

    tiles = get_plugin_settings("napari-kdseg").tiles
    before = tiles.cache_mb
    try:
        follow_cache_size()
        assert default_cache().max_bytes == before * 2**20
        tiles.cache_mb = 777
        assert default_cache().max_bytes == 777 * 2**20
    finally:
        tiles.cache_mb = before
    assert default_cache().max_bytes == before * 2**20


def test_annotations_go_out_and_come_back(viewer, opened, qtbot, picture, tmp_path):
    box = opened(picture).annotations
    box.draw_shapes()
    shapes = layers.find(viewer, "shapes")
    shapes.mode = "pan_zoom"
    shapes.add_polygons([np.array([[100.0, 100], [100, 300], [200, 300], [200, 100]])])
    viewer.layers.selection.active = shapes
    box.save_to(str(tmp_path / "biopsy.geojson"))
    qtbot.waitUntil(lambda: layers.find(viewer, "annotation") is not None, timeout=WAIT)
    mask = layers.find(viewer, "annotation").data[0]
    assert int(mask[150, 200]) == 1
    assert (tmp_path / "biopsy.geojson").is_file()
    assert session_of(viewer).annotation == str(tmp_path / "biopsy.geojson")
    assert box.edit.isEnabled()


def test_outlines_of_every_ending_are_offered_and_can_be_edited(dock):
    box = dock("1 Slide").annotations
    for suffix in ANNOTATION_SUFFIXES:
        assert f"*{suffix} " in OPEN_PATTERNS
        box.show_annotation(f"/slides/A{suffix.upper()}")
        assert box.edit.isEnabled()
    for mask in ("/slides/a.tif", "synthetic:600x400", None):
        box.show_annotation(mask)
        assert not box.edit.isEnabled()
    assert {suffix for suffix, _ in SAVE_FORMATS.values()} <= set(WRITTEN)


def test_what_is_in_no_file_yet_is_asked_about(viewer, opened, qtbot, picture, tmp_path, monkeypatch):
    slide_dock = opened(picture)
    answer, asked = [QMessageBox.StandardButton.No], []
    monkeypatch.setattr(QMessageBox, "question", lambda *said: asked.append(said[2]) or answer[0])
    slide_dock.annotations.draw_shapes()
    shapes = layers.find(viewer, "shapes")
    shapes.mode = "pan_zoom"
    slide_dock.open("synthetic:600x400")
    qtbot.waitUntil(lambda: slide_dock.session.slide.shape == (400, 600), timeout=WAIT)
    assert not asked, "an empty layer is no work"

    slide_dock.annotations.draw_shapes()
    shapes = layers.find(viewer, "shapes")
    shapes.mode = "pan_zoom"
    shapes.add_polygons([np.array([[10.0, 10], [10, 30], [20, 30], [20, 10]])])
    slide_dock.annotations.draw_shapes()  # a second, empty layer does not hide the first
    viewer.layers.selection.active.mode = "pan_zoom"
    viewer.layers.selection.active = shapes
    slide_dock.open(str(picture))
    assert "drawn shapes" in asked[0]
    assert "painted tissue" not in asked[0]
    assert "stays as it is" in slide_dock.note.text()
    slide_dock.session.give_scale((0.5, 0.5))
    assert len(asked) == 2
    assert layers.find(viewer, "shapes") is shapes
    slide_dock.annotations.save_to(str(tmp_path / "drawn.geojson"))
    qtbot.waitUntil(lambda: not shapes.metadata["kdseg_unsaved"], timeout=WAIT)
    shapes.selected_data = {0}
    shapes.remove_selected()
    shapes.add_polygons([np.array([[10.0, 10], [10, 30], [20, 30], [20, 10]])])
    answer[0] = QMessageBox.StandardButton.Yes
    slide_dock.open(str(picture))
    qtbot.waitUntil(lambda: slide_dock.session.slide.name == picture.name, timeout=WAIT)
    assert len(asked) == 3
    assert layers.find(viewer, "shapes") is None
