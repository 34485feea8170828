"""Every view against brute force: each pixel of the canvas is computed from the masks and the camera, then compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from napari.layers import Points
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

from napari_kdseg.colours import BLUISH_GREEN, ORANGE, SKY_BLUE, VERMILION
from napari_kdseg.comparison import disagreement_levels
from napari_kdseg.masks.pyramid import MaskPyramid
from napari_kdseg.slides import LevelArray
from napari_kdseg.widgets._compat import canvas_widget
from napari_kdseg.widgets.binding import session_of
from napari_kdseg.widgets.layers import overlays
from napari_kdseg.widgets.layers.placement import ROLE_KEY, find
from napari_kdseg.widgets.state.camera import pane_size
from napari_kdseg.widgets.views.views import DRAWINGS, VIEWS, in_words, views_of

WAIT = 10_000
SIZE, ZOOM = 160, 4.0
WHITE = (255, 255, 255)
CLASSES = ("background", "gland", "stroma")
COLOURS = {0: WHITE, 1: BLUISH_GREEN, 2: ORANGE}


def pyramid(role, mask):
    level = LevelArray(lambda y, x, h, w: mask[y : y + h, x : x + w], mask.shape, mask.dtype, (64, 64))
    colours = ((0, 0, 0), BLUISH_GREEN, ORANGE)
    return MaskPyramid(Path(role), role, (level,), ((1.0, 1.0),), CLASSES, colours, {"made_by": {}})


@pytest.fixture
def masks():
    """Blocks of classes, other ones in each mask."""
    random = np.random.default_rng(0)
    return {
        role: np.kron(random.integers(0, 3, (SIZE // 8, SIZE // 8)), np.ones((8, 8))).astype(np.uint8)
        for role in ("teacher", "student")
    }


@pytest.fixture
def session(viewer, masks, qtbot):
    """A white slide, filled masks that let nothing through, every pixel of a mask four of the canvas."""
    session = session_of(viewer)
    session.view_settings.outline = False
    session.view_settings.opacity = dict.fromkeys(overlays.GROUPS, 100)
    viewer.add_image(np.full((SIZE, SIZE, 3), 255, np.uint8), rgb=True, metadata={ROLE_KEY: "slide"})
    show(session, masks)
    viewer.scene.camera.center = (SIZE / 2 + 1 / 16, SIZE / 2 + 1 / 16)  # no pixel between two
    viewer.scene.camera.zoom = ZOOM
    qtbot.waitUntil(lambda: canvas_widget(viewer).width() > 300, timeout=WAIT)
    return session


def show(session, masks):
    found = {role: pyramid(role, mask) for role, mask in masks.items()}
    if len(masks) == 2:
        found["disagreement"] = disagreement_levels(found["teacher"], found["student"])
    overlays.show_found(session, found)


def picture(session, qtbot):
    """What is on the canvas, and for every pixel the row and column of the mask that it shows, whole-canvas views."""
    QApplication.processEvents()
    shot = session.viewer.screenshot(flash=False)[..., :3]
    return shot, *places(session, shot.shape[:2])


def places(session, shape, offset=0.0):
    height, width = shape
    y, x = session.viewer.scene.camera.center[-2:]
    rows = np.floor(y + (np.arange(height) + 0.5 - height / 2) / ZOOM + 0.5).astype(int)
    columns = np.floor(x + (np.arange(round(width)) + 0.5 + offset - width / 2) / ZOOM + 0.5).astype(int)
    return rows[:, None], columns[None]


def drawn(mask, rows, columns, colours=None):
    """The picture of a mask, and where there is one."""
    inside = (rows >= 0) & (rows < SIZE) & (columns >= 0) & (columns < SIZE)
    values = mask[np.clip(rows, 0, SIZE - 1), np.clip(columns, 0, SIZE - 1)]
    table = np.array([(colours or COLOURS)[value] for value in range(3)])
    return table[values], inside


def same(shot, expected, where):
    """Compare within one of 255: a colour is a float on its way through the graphics card."""
    assert where.sum() > 5000, "too little of the slide is in the picture"
    difference = np.abs(shot.astype(int) - expected).max(axis=-1)[where]
    assert difference.max() <= 1, f"{(difference > 1).mean():.2%} of the pixels differ"


def camera(session):
    return (*session.viewer.scene.camera.center, session.viewer.scene.camera.zoom)


def move_mouse(session, x, y):
    """Move the cursor over the canvas."""
    canvas = canvas_widget(session.viewer)
    place = QPointF(x, y)
    everywhere = QPointF(canvas.mapToGlobal(QPoint(x, y)))
    none = Qt.MouseButton.NoButton
    QApplication.sendEvent(
        canvas,
        QMouseEvent(QEvent.Type.MouseMove, place, everywhere, none, none, Qt.KeyboardModifier.NoModifier),
    )


# -- what is seen ------------------------------------------------------------------------------------------------------


def test_curtain_shows_one_mask_left_and_the_other_right(session, masks, qtbot):
    views, before = views_of(session), camera(session)
    views.show("curtain")
    divider = views.comparison.divider
    for share in (0.3, 0.6):
        divider.dragged.emit(share)
        shot, rows, columns = picture(session, qtbot)
        left = np.arange(shot.shape[1])[None] < round(share * shot.shape[1])
        teacher, inside = drawn(masks["teacher"], rows, columns)
        student, _ = drawn(masks["student"], rows, columns)
        same(shot, np.where(left[..., None], teacher, student), inside)
    assert camera(session) == before
    qtbot.mousePress(divider, Qt.MouseButton.LeftButton, pos=QPoint(11, 50))
    moved = QMouseEvent(
        QEvent.Type.MouseMove, QPointF(51, 50), QPointF(divider.mapToGlobal(QPoint(51, 50))),
        Qt.MouseButton.NoButton, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier,
    )  # fmt: skip
    width = canvas_widget(session.viewer).width()
    expected = (divider.x() + 51) / width
    QApplication.sendEvent(divider, moved)
    assert session.view_settings.divider == pytest.approx(expected)
    assert camera(session) == before, "the slide moves with the divider"


def test_lens_shows_the_other_mask_under_the_cursor(session, masks, qtbot):
    views, before, radius = views_of(session), camera(session), 50
    views.set(radius=radius)
    views.show("lens")
    for x, y in ((150, 120), (260, 200)):
        move_mouse(session, x, y)
        shot, rows, columns = picture(session, qtbot)
        down, across = np.mgrid[: shot.shape[0], : shot.shape[1]] + 0.5
        lens = np.hypot(across - x, down - y) <= radius
        teacher, inside = drawn(masks["teacher"], rows, columns)
        student, _ = drawn(masks["student"], rows, columns)
        same(shot, np.where(lens[..., None], student, teacher), inside)
    QApplication.sendEvent(canvas_widget(session.viewer), QEvent(QEvent.Type.Leave))
    shot, rows, columns = picture(session, qtbot)
    same(shot, *drawn(masks["teacher"], rows, columns))
    assert camera(session) == before


def test_flicker_shows_the_masks_in_turns_at_its_speed(session, masks, qtbot):
    views = views_of(session)
    views.set(changes=0.5)
    views.show("flicker")
    sliced = []
    for role in masks:
        find(session.viewer, role).events.set_data.connect(lambda event: sliced.append(event))
    for role in ("teacher", "student", "teacher"):
        shot, rows, columns = picture(session, qtbot)
        same(shot, *drawn(masks[role], rows, columns))
        views.comparison.turn()
    assert not sliced, "a change is a redraw"
    assert views.comparison._timer.interval() == 2000
    views.set(changes=4.0)
    assert views.comparison._timer.interval() == 250
    with qtbot.waitSignal(views.comparison._timer.timeout, timeout=WAIT):
        pass


@pytest.mark.parametrize("sides", [("teacher", "student", ""), ("teacher", "", "student")])
def test_panes_show_the_same_place_at_the_same_zoom(session, masks, qtbot, sides):
    views, before, order = views_of(session), camera(session), list(session.viewer.layers)
    session.view_settings.sides = sides
    views.show("side by side")
    assert camera(session) == before
    QApplication.processEvents()
    for layer in session.viewer.layers:
        layer.name_overlay.visible = False  # they are looked at elsewhere: here they are in the way
    shot = session.viewer.screenshot(flash=False)[..., :3]
    panes = session.viewer.window._qt_viewer.canvas.grid_views
    assert len(panes) == (3 if sides[2] else 2)
    for role, pane in zip(sides, panes, strict=False):
        left, width = float(pane.transform.translate[0]), pane.rect.width
        assert width == pytest.approx(pane_size(session.viewer)[1])
        first, last = round(left) + 1, round(left + width) - 1  # a pane may end within a pixel
        rows, columns = places(
            session, (shot.shape[0], last - first), first - left - (width - last + first) / 2
        )
        expected, inside = drawn(masks[role] if role else np.zeros_like(masks["teacher"]), rows, columns)
        same(shot[:, first:last], expected, inside)
    slides = [layer.data for layer in session.viewer.layers if getattr(layer, "rgb", False)]
    assert len(slides) == len(panes)
    assert all(np.shares_memory(data, slides[0]) for data in slides), "one slide, one cache"
    views.show("overlay")
    assert list(session.viewer.layers) == order
    assert not session.viewer.canvas.grid.enabled
    assert camera(session) == before


def test_slide_only_and_a_peek_show_the_slide(session, masks, qtbot):
    views = views_of(session)
    white = np.full(3, 255)
    for begin in (lambda: views.show("slide only"), views.peek):
        end = begin()
        shot, rows, columns = picture(session, qtbot)
        _, inside = drawn(masks["teacher"], rows, columns)
        same(shot, white, inside)
        views.show("overlay") if end is None else end()
        shot, *_ = picture(session, qtbot)
        assert (shot[inside] != 255).any()


def test_drawing_goes_round(session, masks, qtbot):
    views = views_of(session)
    find(session.viewer, "student").visible = False
    seen = {}
    assert views.drawing == "fill"
    for _ in DRAWINGS:
        views.cycle()
        seen[views.drawing] = picture(session, qtbot)
    shot, rows, columns = seen["none"]
    teacher, inside = drawn(masks["teacher"], rows, columns)
    same(shot, np.full(3, 255), inside)
    same(seen["fill"][0], teacher, inside)
    differ = np.select(
        [masks["teacher"] == masks["student"], masks["student"] == 0, masks["teacher"] == 0], [0, 1, 2], 3
    )
    codes = differ[np.clip(rows, 0, SIZE - 1), np.clip(columns, 0, SIZE - 1)]
    table = np.array([WHITE, (0, 114, 178), ORANGE, VERMILION])  # only teacher, only student, other class
    same(seen["difference"][0], table[codes], inside)
    outlined = seen["outline"][0]
    blue = (outlined == (0, 114, 178)).all(axis=-1)
    assert blue.any()
    assert ((outlined == 255).all(axis=-1) | blue)[inside].all(), "outlines have the colour of the source"
    assert not find(session.viewer, "disagreement").visible, "as before the difference was shown"


def test_outlines_that_coincide_are_nested(viewer, qtbot):
    """A rim of the teacher's stays in sight inside the student's."""
    session = session_of(viewer)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[40:120, 40:120] = 1
    show(session, {"teacher": mask, "student": mask})
    for role in ("teacher", "student"):
        find(viewer, role).opacity = 1.0
    viewer.scene.camera.center, viewer.scene.camera.zoom = (80.0625, 80.0625), ZOOM
    shot, rows, columns = picture(session, qtbot)
    middle = shot[np.flatnonzero(rows[:, 0] == 80)[0]]
    colours = [tuple(middle[np.flatnonzero(columns[0] == column)[1]]) for column in range(40, 46)]
    assert colours == [ORANGE, ORANGE, (0, 114, 178), (0, 114, 178), (0, 0, 0), (0, 0, 0)]


# -- classes -----------------------------------------------------------------------------------------------------------


def test_classes_are_left_out_alone_and_coloured(session, masks, qtbot, dock):
    box = dock("4 Compare").classes
    find(session.viewer, "student").visible = False
    both = {1: BLUISH_GREEN, 2: ORANGE}

    def shows(colours):
        shot, rows, columns = picture(session, qtbot)
        same(shot, *drawn(masks["teacher"], rows, columns, {0: WHITE, 1: WHITE, 2: WHITE} | colours))

    shows(both)
    box.rows["gland"][1].click()
    shows({2: ORANGE})
    box.rows["gland"][2].click()
    shows({1: BLUISH_GREEN})
    assert not box.rows["stroma"][1].isChecked()
    box.rows["gland"][2].click()
    shows(both)
    overlays.colour_class(session, "stroma", "#56b4e9")
    shows({1: BLUISH_GREEN, 2: SKY_BLUE})
    show(session, masks)  # renewed from disk, or the next day
    shows({1: BLUISH_GREEN, 2: SKY_BLUE})
    box.own.click()
    shows(both)


def test_a_class_has_one_colour_whatever_its_number():
    from napari_kdseg.widgets.state.class_colours import choose_colour, palette

    teacher = (("background", "tumour", "stroma"), ("#000000", "#009e73", "#e69f00"))
    student = (("background", "stroma", "necrosis"), ("#000000", "#009e73", "#e69f00"))
    assert palette([teacher, student]) == {"tumour": "#009e73", "stroma": "#e69f00", "necrosis": "#56b4e9"}
    choose_colour("necrosis", "#112233")
    assert palette([student]) == {"stroma": "#009e73", "necrosis": "#112233"}
    choose_colour("necrosis", None)
    assert palette([student]) == {"stroma": "#009e73", "necrosis": "#e69f00"}
    assert palette([(("background", "gland"), None)]) == {"gland": "#009e73"}


# -- what happens in the middle ----------------------------------------------------------------------------------------


@pytest.mark.exhaustive
@pytest.mark.parametrize("view", VIEWS)
def test_a_layer_deleted_in_the_middle_breaks_nothing_and_is_said(session, masks, qtbot, dock, view):
    views, compare = views_of(session), dock("4 Compare")
    views.show(view)
    find(session.viewer, "teacher").name = "mine"
    session.viewer.layers.remove(find(session.viewer, "student"))
    wanted = "student" in in_words(views.missing)
    assert wanted == (view not in ("overlay", "slide only"))
    qtbot.waitUntil(lambda: ("student" in compare.views.missing.text()) == wanted, timeout=WAIT)
    for layer in [layer for layer in session.viewer.layers if layer.metadata.get(ROLE_KEY) == "slide copy"]:
        session.viewer.layers.remove(layer)
    session.viewer.add_layer(Points(ndim=2, name="of another plugin"))
    show(session, masks)
    qtbot.waitUntil(lambda: not compare.views.missing.text(), timeout=WAIT)
    for other in VIEWS:
        views.show(other)
    views.show("overlay")
    assert [layer.name for layer in session.viewer.layers if "pane" in layer.name] == []
    shot, rows, columns = picture(session, qtbot)
    student, inside = drawn(masks["student"], rows, columns)
    seen = inside & (student != 255).any(axis=-1)
    same(shot, student, seen)


@pytest.mark.exhaustive
def test_the_window_closes_in_any_view(make_napari_viewer, masks, qtbot):
    """Each leaves timers, filters and widgets on the canvas behind; none may answer any more."""
    for view in ("flicker", "curtain", "side by side"):
        viewer = make_napari_viewer(show=True)
        session = session_of(viewer)
        show(session, masks)
        views_of(session).set(changes=6.0)
        views_of(session).show(view)
        viewer.close()
        qtbot.wait(400)


def test_settings_of_the_views_are_kept(session):
    from napari_kdseg.widgets.state.remembered import remember
    from napari_kdseg.widgets.state.view_settings import KEY, ViewSettings

    views = views_of(session)
    views.set(radius=200, changes=3.0)
    views.choose_side(0, "student")
    overlays.set_opacity(session, "teacher", 45)
    kept = ViewSettings.kept()
    assert (kept.radius, kept.changes, kept.opacity["teacher"], kept.outline) == (200, 3.0, 45, False)
    assert kept.sides == ("student", "teacher", ""), "they changed places"
    assert find(session.viewer, "teacher").opacity == 0.45
    remember(KEY, '{"radius": "wide"}')
    assert ViewSettings.kept() == ViewSettings()
