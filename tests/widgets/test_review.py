"""The review in the window: planted errors are listed, flown to, shown as crops and marked; marks are found again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from napari._app_model import get_app_model
from napari.components import ViewerModel
from napari.utils.shortcuts import default_shortcuts
from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QApplication

from napari_kdseg.codes import Difference
from napari_kdseg.comparison.regions.table import COLUMNS, Compared, RegionTable
from napari_kdseg.comparison.review.file import read_review
from napari_kdseg.comparison.review.marks import Verdict
from napari_kdseg.masks import MaskSpec, MaskStore, open_masks, plan_tiles
from napari_kdseg.slides import open_slide
from napari_kdseg.widgets.binding import session_of
from napari_kdseg.widgets.layers.placement import ROLE_KEY, find
from napari_kdseg.widgets.review.arrangement import Wish, arrange, pairs_of, verdicts
from napari_kdseg.widgets.review.box import ReviewBox
from napari_kdseg.widgets.review.crops import SIDE, MaskPanel, crops, draw, outline, square_around
from napari_kdseg.widgets.review.gallery import nice_length
from napari_kdseg.widgets.review.keys import ACTIONS, KEYS
from napari_kdseg.widgets.review.model import RegionModel
from napari_kdseg.widgets.review.region_list import RegionList
from napari_kdseg.widgets.review.wording import area_text
from napari_kdseg.widgets.state.background import pending
from napari_kdseg.widgets.state.camera import SMALLEST_UM
from napari_kdseg.widgets.state.session import Session

WAIT = 60_000
CLASSES = ("background", "gland", "tumour")
COLOURS = ((0, 0, 0), (0, 158, 115), (230, 159, 0))
HEIGHT, WIDTH, MPP = 900, 1200, 0.5
ADDRESS = f"synthetic:{WIDTH}x{HEIGHT}?seed=1&mpp={MPP}"

DEBUG = {"Alt+T", "Alt+Shift+T"}
"""Of a menu that napari has for its own developers only."""

PLANTED = {  # (y, x, height, width): teacher's class, student's
    (100, 100, 120, 160): (1, 0),
    (400, 200, 40, 30): (1, 2),
    (600, 700, 80, 100): (0, 2),
    (200, 900, 20, 20): (2, 0),
    (800, 60, 10, 24): (0, 1),
}
BY_AREA = sorted(PLANTED, key=lambda box: -box[2] * box[3])


def masks():
    teacher, student = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    teacher[300:500, 500:800] = student[300:500, 500:800] = 1  # agreed
    for (y, x, height, width), (first, second) in PLANTED.items():
        teacher[y : y + height, x : x + width] = first
        student[y : y + height, x : x + width] = second
    return teacher, student


@pytest.fixture(scope="module")
def slide():
    with open_slide(ADDRESS) as slide:
        yield slide


@pytest.fixture(scope="module")
def pyramids(slide, tmp_path_factory):
    """The masks of teacher and student on disk."""
    store = MaskStore(tmp_path_factory.mktemp("masks") / "slide.ome.zarr", slide)
    for name, values in zip(("teacher", "student"), masks(), strict=True):
        mask = MaskSpec("labels", name, "class", CLASSES, COLOURS)
        with store.begin((mask,), shape=values.shape, downsample=(1.0, 1.0), tile=512, made_by={}) as writer:
            for tile in plan_tiles(values.shape, None, 512, 0):
                block = values[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
                writer.write_tile(tile, [block])
            writer.finish(None)
    return open_masks(store.path)


@pytest.fixture
def table(regions_of):
    return regions_of(*masks(), CLASSES, mpp=(MPP, MPP))


@pytest.fixture
def session(slide, qtbot):
    """A session of a viewer without a window: camera, canvas, layers and status are there."""
    viewer = ViewerModel()
    viewer.canvas.size = (600, 800)
    viewer.add_image(np.zeros((90, 120)), name="slide", metadata={ROLE_KEY: "slide"})
    session = Session(viewer)
    session.set_slide(slide)
    yield session
    qtbot.waitUntil(lambda: not pending(), timeout=WAIT)


@pytest.fixture
def opened(session, pyramids, qtbot):
    """Show regions in a box."""

    def show(table, **options):
        box = ReviewBox(session, **options)
        qtbot.addWidget(box)
        box.resize(360, 760)
        box.show()
        with qtbot.waitSignal(box.shown, timeout=WAIT):
            box.show_regions(table, {name: pyramids[name] for name in ("teacher", "student")})
        return box

    return show


@pytest.fixture
def box(opened, table):
    return opened(table)


def press(box, key):
    """Do what a key does."""
    ACTIONS[key](box)


def press_on_canvas(viewer, key):
    """Press a key on the canvas as a person does."""
    *held, letter = key.split("-")
    modifiers = Qt.KeyboardModifier.NoModifier
    for name in held:
        modifiers |= getattr(Qt.KeyboardModifier, f"{name}Modifier")
    for kind in (QEvent.Type.KeyPress, QEvent.Type.KeyRelease):
        event = QKeyEvent(kind, getattr(Qt.Key, f"Key_{letter}"), modifiers)
        QApplication.sendEvent(viewer.window._qt_viewer.canvas.native, event)


def middle(box):
    y, x, height, width = box
    return y + height / 2 - 0.5, x + width / 2 - 0.5


def canvas_centre(viewer):
    """Level-0 pixel in the middle of the canvas."""
    return np.asarray(viewer.scene.camera.center[-2:]) / MPP


def listed(box):
    return [box.model.region_at(row).box for row in range(box.model.rowCount())]


def settle(qtbot):
    qtbot.waitUntil(lambda: not pending(), timeout=WAIT)


# -- finding the errors ----------------------------------------------------------------------------------------------


def test_in_the_window_each_planted_error_is_listed_worst_first_and_flown_to_with_any_layer_active(
    viewer, pyramids, table, qtbot
):
    session = session_of(viewer)
    session.open_slide(ADDRESS)
    box = ReviewBox(session, viewer)
    viewer.window.add_dock_widget(box, name="review", area="right")
    qtbot.waitUntil(lambda: session.slide is not None and not pending(), timeout=WAIT)
    with qtbot.waitSignal(box.shown, timeout=WAIT):
        box.show_regions(table, pyramids)
    assert listed(box) == BY_AREA
    adding = (
        lambda: find(viewer, "slide"),
        lambda: viewer.add_labels(np.zeros((8, 8), int), scale=(MPP, MPP), units=("um", "um")),
        lambda: viewer.add_points(ndim=2, scale=(MPP, MPP), units=("um", "um")),
        lambda: viewer.add_shapes(ndim=2, scale=(MPP, MPP), units=("um", "um")),
    )
    for place, planted in enumerate(BY_AREA):
        viewer.layers.selection.active = adding[place % len(adding)]()
        press_on_canvas(viewer, "Alt-Right")
        np.testing.assert_allclose(canvas_centre(viewer), middle(planted), equal_nan=False)
        assert box.position.text().startswith(f"{place + 1} of 5, ")
        assert box.list.currentIndex().row() == place
        for key, verdict in {
            "T": "first",
            "D": "second",
            "B": "both",
            "N": "neither",
            "U": "unclear",
        }.items():
            press_on_canvas(viewer, f"Alt-{key}")
            assert box.marking.of(box.current.number).mark == verdict
        press_on_canvas(viewer, "Alt-Z")
        assert box.marking.of(box.current.number).mark == "neither"
        press_on_canvas(viewer, "Alt-Shift-Z")
        assert box.marking.of(box.current.number).mark == "unclear"
    press_on_canvas(viewer, "Alt-Right")
    assert "last" in viewer.status
    press_on_canvas(viewer, "Alt-Left")
    assert box.current.box == BY_AREA[3]
    taken = {str(bound.keybinding) for bound in get_app_model().keybindings}
    taken |= {str(key) for keys in default_shortcuts.values() for key in keys}
    menus = viewer.window._qt_window.menuBar().actions()
    taken |= {f"Alt+{menu.text().split('&')[1][0].upper()}" for menu in menus}
    assert {"Alt+S", "Alt+F", "Alt+Up"} <= taken, "they are found at all"
    assert not {key.replace("-", "+") for key in ACTIONS} & (taken - DEBUG), "a menu would be first"
    viewer.window.remove_dock_widget(box)
    box.deleteLater()
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
    press_on_canvas(viewer, "Alt-Left")  # nobody answers


def test_a_region_fills_a_third_of_the_canvas_and_a_speck_is_not_enlarged_beyond_sense(box):
    viewer = box.session.viewer
    for (_, _, height, width), limit in zip(BY_AREA, (1 / 3,) * 3 + (0, 0), strict=True):
        press(box, "Alt-Right")
        share = (
            np.array((height, width)) * MPP * viewer.scene.camera.zoom / np.asarray(viewer.canvas.size)
        ).max()
        if limit and max(height, width) * MPP >= SMALLEST_UM:
            assert share == pytest.approx(1 / 3)
        else:
            assert share < 1 / 3


def test_a_click_in_list_or_gallery_flies_there(box, qtbot):
    box.list.setCurrentIndex(box.model.index(2, 3))
    assert box.current.box == BY_AREA[2]
    box.gallery.scrollTo(box.model.index(1, 0))
    where = box.gallery.visualRect(box.model.index(1, 0)).center()
    qtbot.mouseClick(box.gallery.viewport(), Qt.MouseButton.LeftButton, pos=where)
    assert box.current.box == BY_AREA[1]
    np.testing.assert_allclose(canvas_centre(box.session.viewer), middle(BY_AREA[1]), equal_nan=False)


def test_what_is_left_is_the_area_of_what_has_no_mark(box):
    total = sum(height * width for _, _, height, width in PLANTED) * MPP**2
    assert box.position.text() == f"5 regions, {area_text(total * 1e-6)} left"
    press(box, "Alt-Right")
    press(box, "Alt-U")
    total -= 120 * 160 * MPP**2
    assert box.position.text() == f"1 of 5, {area_text(total * 1e-6)} left"


@pytest.mark.parametrize(
    ("area", "words"),
    [(3.14, "3.1 mm²"), (1234.5, "1,234.5 mm²"), (0.0123, "0.012 mm²"), (0.00031, "310 µm²"), (0.0, "0 mm²")],
)
def test_areas_are_said_in_units_of_people(area, words):
    assert area_text(area) == words


# -- keys ------------------------------------------------------------------------------------------------------------


def test_every_key_of_the_review_is_in_the_table_of_keys():
    assert set(ACTIONS) <= set(KEYS)


def test_keys_act_inside_the_box_too(box, qtbot):
    box.activateWindow()
    qtbot.waitUntil(box.isActiveWindow, timeout=WAIT)
    box.list.setFocus()
    assert box.current is None, "a list that has the focus flies nowhere"
    qtbot.keyClick(box.list, Qt.Key.Key_Right, Qt.KeyboardModifier.AltModifier)
    assert box.current.box == BY_AREA[0]
    box.marks.comment.setFocus()
    qtbot.keyClick(box.marks.comment, Qt.Key.Key_D, Qt.KeyboardModifier.AltModifier)
    assert box.marking.of(box.current.number).mark == Verdict.SECOND


# -- marks -----------------------------------------------------------------------------------------------------------


def test_marks_are_on_disk_and_found_again(box, opened, table, qtbot):
    press(box, "Alt-Right")
    press(box, "Alt-T")
    press(box, "Alt-Right")
    box.marks.comment.setText("a comment that nobody ended with Enter")
    press(box, "Alt-Right")
    box.marks.comment.setText("with a mark")
    press(box, "Alt-N")
    settle(qtbot)
    kept = {entry.box: (entry.mark, entry.comment) for entry in read_review(box.marking.review.path).entries}
    expected = {
        BY_AREA[0]: ("first", ""),
        BY_AREA[1]: ("", "a comment that nobody ended with Enter"),
        BY_AREA[2]: ("neither", "with a mark"),
    }
    assert kept == expected
    again = opened(table)
    found = {mark.box: (mark.mark, mark.comment) for mark in again.marking.review.marks.regions().values()}
    assert found == expected
    assert [again.model.data(again.model.index(row, 5)) for row in range(4)] == ["teacher", "", "neither", ""]
    again.go(again.model.number_at(2))
    assert again.marks.comment.text() == "with a mark"
    assert again.marks.buttons[Verdict.NEITHER].isChecked()


def test_undo_goes_back_to_where_it_was(box, qtbot):
    press(box, "Alt-Right")
    box.marks.comment.setText("not sure")
    press(box, "Alt-T")
    press(box, "Alt-Right")
    press(box, "Alt-Z")
    assert box.current.box == BY_AREA[0]
    assert box.marking.of(box.current.number) is None
    assert box.marks.comment.text() == ""
    assert box.marks.redo.isEnabled()
    press(box, "Alt-Shift-Z")
    assert box.marking.of(box.current.number).comment == "not sure"
    settle(qtbot)
    lines = box.marking.review.path.read_text().splitlines()[1:]
    assert [json.loads(line).get("undo") for line in lines] == [None, True, False]


def test_the_same_mark_twice_is_said_once(box, qtbot):
    press(box, "Alt-Right")
    press(box, "Alt-B")
    press(box, "Alt-B")
    settle(qtbot)
    assert len(read_review(box.marking.review.path).entries) == 1


def test_marks_before_a_region_was_chosen_say_what_to_do(box):
    press(box, "Alt-T")
    assert "Choose a region first" in box.session.viewer.status


# -- filters ---------------------------------------------------------------------------------------------------------


def test_filters_and_ranks(box, qtbot):
    def choose(text):
        box.filters.kind.setCurrentIndex(box.filters.kind.findText(text))
        with qtbot.waitSignal(box.shown, timeout=WAIT):
            box.filters.kind.activated.emit(box.filters.kind.currentIndex())

    choose("only student")
    assert listed(box) == [box_ for box_ in BY_AREA if PLANTED[box_][0] == 0]
    choose("gland | tumour")
    assert listed(box) == [box_ for box_ in BY_AREA if PLANTED[box_] == (1, 2)]
    choose("all")
    with qtbot.waitSignal(box.shown, timeout=WAIT):
        box.filters.min_area.setValue(400 * MPP**2 * 1e-6)
    assert listed(box) == BY_AREA[:4]
    with qtbot.waitSignal(box.shown, timeout=WAIT):
        box.list.horizontalHeader().setSortIndicator(1, Qt.SortOrder.AscendingOrder)
    assert listed(box) == BY_AREA[:4][::-1]


def test_unmarked_only_passes_over_what_was_marked_meanwhile(box, qtbot):
    press(box, "Alt-Right")
    press(box, "Alt-T")
    with qtbot.waitSignal(box.shown, timeout=WAIT):
        box.filters.unmarked.setChecked(True)
    assert listed(box) == BY_AREA[1:]
    press(box, "Alt-Right")
    press(box, "Alt-Right")
    press(box, "Alt-T")
    press(box, "Alt-Left")
    press(box, "Alt-Right")
    assert box.current.box == BY_AREA[3], "the one between has a mark now"


# -- gallery ---------------------------------------------------------------------------------------------------------


def test_the_gallery_shows_each_planted_error(box, table, qtbot):
    """Every crop against slide and masks sampled pixel by pixel."""
    slide = box.session.slide
    for region in table:
        square = square_around(region, slide.mpp)
        strip = crops(slide, box.gallery.masks, region)
        assert strip.shape == (SIDE, 3 * SIDE, 3)
        bare = slide.read_scaled(square.downsample, square.y, square.x, SIDE, SIDE)
        np.testing.assert_array_equal(strip[:, :SIDE], bare)
        for place, values in enumerate(masks(), 1):
            rows = np.floor((square.y + np.arange(SIDE) + 0.5) * square.downsample[0] + 1e-6).astype(int)
            columns = np.floor((square.x + np.arange(SIDE) + 0.5) * square.downsample[1] + 1e-6).astype(int)
            inside = np.ix_((rows >= 0) & (rows < HEIGHT), (columns >= 0) & (columns < WIDTH))
            classes = np.zeros((SIDE, SIDE), np.uint8)
            classes[inside] = values[rows.clip(0, HEIGHT - 1)][:, columns.clip(0, WIDTH - 1)][inside]
            changed = (strip[:, place * SIDE : (place + 1) * SIDE] != bare).any(axis=2)
            assert not changed[(classes == 0) & ~outline(classes)].any()
            assert changed[outline(classes)].sum() >= 0.99 * outline(classes).sum()
        assert (square.side_um >= np.array(region.box[2:]) * MPP).all()


def test_a_mask_is_drawn_as_its_outline_and_a_breath_of_its_class():
    pixels = np.full((20, 20, 3), 200, np.uint8)
    classes = np.zeros((20, 20), np.uint8)
    classes[6:14, 6:14] = 1
    classes[0, 0] = 255
    out = draw(pixels, classes, MaskPanel("m", None, (0, 114, 178), ((0, 0, 0), (100, 0, 0))))
    border = np.zeros((20, 20), bool)
    border[5:15, 5:15] = True
    border[8:12, 8:12] = False
    assert (out[border] == (0, 114, 178)).all()
    assert (out[8:12, 8:12] == (175, 150, 150)).all(), "a quarter of the class's colour"
    outside = ~border
    outside[8:12, 8:12] = False
    assert (out[outside] == 200).all(), "not computed is not shown"


def test_an_outline_is_drawn_between_two_classes_and_not_along_the_edge_of_the_crop():
    classes = np.ones((9, 9), np.uint8)
    assert not outline(classes).any()
    classes[:, 5:] = 2
    assert np.flatnonzero(outline(classes)[4]).tolist() == [3, 4, 5, 6]


def test_crops_are_loaded_for_what_is_on_screen_and_few_are_kept(opened, regions_of, qtbot):
    from napari_kdseg.widgets.review import loader

    teacher = np.zeros((HEIGHT, WIDTH), np.uint8)
    for y in range(10, HEIGHT - 10, 40):
        for x in range(10, WIDTH - 10, 40):
            teacher[y : y + 8, x : x + 8] = 1
    many = regions_of(teacher[::2, ::2], np.zeros_like(teacher)[::2, ::2], CLASSES, downsample=2)
    box = opened(many)
    assert len(many) == 22 * 30
    rows = box.gallery.rows_on_screen()
    qtbot.waitUntil(lambda: all(box.model.number_at(row) in box.gallery.loader for row in rows), timeout=WAIT)
    settle(qtbot)
    assert len(box.gallery.loader._kept) <= 2 * len(rows) + 2
    box.gallery.verticalScrollBar().setValue(box.gallery.verticalScrollBar().maximum())
    box.gallery.verticalScrollBar().setValue(0)
    box.gallery.verticalScrollBar().setValue(box.gallery.verticalScrollBar().maximum() // 2)
    qtbot.waitUntil(
        lambda: all(box.model.number_at(row) in box.gallery.loader for row in box.gallery.rows_on_screen()),
        timeout=WAIT,
    )
    assert box.gallery.rows_on_screen().start > 100
    settle(qtbot)
    assert len(box.gallery.loader._kept) <= loader.KEPT


def test_what_is_wanted_last_is_read_first_and_what_is_wanted_no_more_is_not_read(qtbot):
    import threading

    from qtpy.QtCore import QObject

    from napari_kdseg.widgets.review.loader import CropLoader

    owner, read, go_on = QObject(), [], threading.Event()
    loader = CropLoader(owner)

    def slow(number):
        read.append(number)
        assert go_on.wait(WAIT / 1000)
        if number == 9:
            raise OSError("gone")
        return np.zeros((4, 4, 3), np.uint8)

    loader.read_with(slow)
    said = []
    loader.failed.connect(said.append)
    loader.want([1, 2, 3])
    qtbot.waitUntil(lambda: read == [1], timeout=WAIT)
    loader.want([8, 9, 10])
    go_on.set()
    qtbot.waitUntil(lambda: not pending(), timeout=WAIT)
    assert read == [1, 8, 9, 10]
    assert loader.get(9) is None
    assert loader.get(10) is not None
    assert len(said) == 1


def test_a_scale_bar_has_a_round_length():
    assert [nice_length(most) for most in (1, 4.9, 5, 45, 120, 999, 1000)] == [1, 2, 5, 20, 100, 500, 1000]


# -- what people do in the middle of a review ------------------------------------------------------------------------


def test_layers_may_be_renamed_and_deleted(box, qtbot):
    viewer = box.session.viewer
    viewer.add_labels(np.zeros((90, 120), int), name="teacher", metadata={ROLE_KEY: "teacher"})
    viewer.add_labels(np.zeros((90, 120), int), name="student", metadata={ROLE_KEY: "student"})
    press(box, "Alt-Right")
    find(viewer, "slide").name = "something else"
    find(viewer, "teacher").name = "slide"
    viewer.layers.remove(find(viewer, "student"))
    press(box, "Alt-Right")
    assert not box.note.text()
    np.testing.assert_allclose(canvas_centre(viewer), middle(BY_AREA[1]), equal_nan=False)
    viewer.layers.remove(find(viewer, "slide"))
    press(box, "Alt-Right")
    assert "Open the slide again in 1 Slide; all marks are kept" in box.note.text()
    press(box, "Alt-T")
    settle(qtbot)
    assert [entry.box for entry in read_review(box.marking.review.path).entries] == [BY_AREA[2]]


def test_another_slide_ends_the_review_and_keeps_it(box, slide, session, opened, table, qtbot):
    press(box, "Alt-Right")
    box.marks.comment.setText("half a thought")
    with open_slide("synthetic:500x400?seed=2&mpp=0.5") as other:
        session.set_slide(other)
        assert box.table is None
        assert "Another slide" in box.note.text()
        press(box, "Alt-Right")
        assert "Nothing to review" in session.viewer.status
        settle(qtbot)
    session.set_slide(slide)
    again = opened(table)
    assert [mark.comment for mark in again.marking.review.marks.regions().values()] == ["half a thought"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"kdseg_review": 99}\n', "newer version"),
        (b'{"kdseg_rev', "does not say which slide"),
        (
            b'{"kdseg_review": 1, "slide": "b.svs", "identity": "x", "first": "t", "second": "s", "made_by": {}}',
            "another slide, b.svs",
        ),
    ],
)
def test_a_bad_review_file_is_said_and_left_and_regions_can_be_looked_at(
    box, opened, table, qtbot, content, sentence
):
    press(box, "Alt-Right")
    press(box, "Alt-T")
    settle(qtbot)
    path = Path(box.marking.review.path)
    path.write_bytes(content)
    again = opened(table)
    assert sentence in again.note.text()
    assert "Move it away to begin anew" in again.note.text()
    press(again, "Alt-Right")
    assert again.current.box == BY_AREA[0]
    press(again, "Alt-B")
    settle(qtbot)
    assert path.read_bytes() == content
    assert not again.marks.buttons[Verdict.BOTH].isEnabled()


def test_a_mark_that_cannot_be_written_is_said_and_written_with_the_next(box, qtbot):
    press(box, "Alt-Right")
    press(box, "Alt-T")
    settle(qtbot)
    path = Path(box.marking.review.path)
    whole = path.read_bytes()
    path.unlink()
    path.mkdir()
    press(box, "Alt-B")
    settle(qtbot)
    assert "could not be kept" in box.note.text()
    path.rmdir()
    path.write_bytes(whole)
    press(box, "Alt-Right")
    press(box, "Alt-N")
    settle(qtbot)
    assert [entry.mark for entry in read_review(path).entries] == ["first", "both", "neither"]
    assert not box.note.text()


# -- many regions ----------------------------------------------------------------------------------------------------


def many(count=200_000):
    random = np.random.default_rng(0)
    rows = np.zeros(count, COLUMNS)
    rows["region"] = np.arange(count)
    first = random.integers(0, 3, count)
    rows["first_class"], rows["second_class"] = first, (first + random.integers(1, 3, count)) % 3
    rows["kind"] = np.where(rows["second_class"] == 0, 1, np.where(first == 0, 2, 3))
    rows["area_px"] = random.integers(1, 10_000, count)
    rows["area_mm2"] = rows["area_px"] * 0.25e-6
    rows["gap"], rows["depth_um"] = random.random((2, count))
    rows["y0"], rows["x0"] = random.integers(0, 90_000, (2, count))
    rows["y1"], rows["x1"] = rows["y0"] + 50, rows["x0"] + 50
    return RegionTable(rows, Compared("teacher", "student", CLASSES, (1.0, 1.0), (0.5, 0.5)))


def test_200_000_regions_are_listed_without_making_anything_of_each(qtbot, monkeypatch):
    table, looked_at = many(), []
    at = RegionTable.at
    monkeypatch.setattr(RegionTable, "at", lambda self, index: looked_at.append(index) or at(self, index))
    said = verdicts(table, {})
    said[table.rows["region"][table.rows["area_px"].argmax()]] = 2
    wish = Wish(by="gap", kind=Difference.DIFFERENT_CLASS, min_area=0.001, unmarked=True)
    few = arrange(table, wish, said)
    rows = table.rows
    expected = rows[(rows["kind"] == 3) & (rows["area_mm2"] >= 0.001) & (said[rows["region"]] == 0)]
    assert (
        few.rows["region"].tolist()
        == expected[np.argsort(-expected["gap"], kind="stable")]["region"].tolist()
    )
    model = RegionModel()
    view = RegionList(model)
    qtbot.addWidget(view)
    view.resize(360, 200)
    view.show()
    model.set_regions(arrange(table, Wish(), said), said)
    view.scrollToBottom()
    QApplication.processEvents()
    assert model.rowCount() == 200_000
    assert 0 < len(looked_at) < 2_000
    assert model.left()[0] == 199_999
    assert model.next_row(0, 1, unmarked=True) == 1
    assert model.next_row(None, 1, unmarked=True) == 1, "the largest one is marked"


@pytest.mark.parametrize("largest_first", [True, False])
def test_classes_are_ranked_together_the_largest_regions_of_each_first(largest_first):
    table = many(500)
    said = verdicts(table, {})
    ranked = arrange(table, Wish(by="classes", largest_first=largest_first), said).rows
    sign = -1 if largest_first else 1
    naive = sorted(
        table.rows.tolist(), key=lambda r: (sign * (r[2] * 256 + r[3]), -r[4], r[0])
    )  # region kind first second area
    assert ranked["region"].tolist() == [row[0] for row in naive]


def test_pairs_of_classes_are_offered_the_largest_area_first():
    table = many(300)
    areas: dict[tuple[int, int], int] = {}
    for row in table.rows:
        pair = (int(row["first_class"]), int(row["second_class"]))
        areas[pair] = areas.get(pair, 0) + int(row["area_px"])
    assert pairs_of(table) == sorted(areas, key=lambda pair: -areas[pair])
