"""Keys reach us with any kind of layer active, take nothing from napari, and are bound while layers of ours exist."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Labels, Points, Shapes
from napari.utils.key_bindings import coerce_keybinding
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_kdseg.widgets._compat import canvas_widget
from napari_kdseg.widgets.binding import session_of
from napari_kdseg.widgets.keys import KEYS
from napari_kdseg.widgets.layers.placement import ROLE_KEY, find
from napari_kdseg.widgets.review.keys import KEYS as REVIEW_KEYS
from napari_kdseg.widgets.views.views import views_of

ALT = Qt.KeyboardModifier.AltModifier
LAYERS = {"image": Image, "labels": Labels, "shapes": Shapes, "points": Points}


@pytest.fixture
def session(viewer):
    for role in ("teacher", "student", "disagreement"):
        viewer.add_labels(np.ones((64, 64), np.uint8), name=role, metadata={ROLE_KEY: role})
    return session_of(viewer)


def active(viewer, kind):
    """Make a layer of this kind the active one."""
    data = {"image": np.zeros((9, 9)), "labels": np.zeros((9, 9), np.uint8)}
    layer = LAYERS[kind](data[kind]) if kind in data else LAYERS[kind](ndim=2)
    viewer.add_layer(layer)
    viewer.layers.selection.active = layer


@pytest.mark.parametrize("kind", LAYERS)
def test_keys_work_with_any_layer_active(session, qtbot, kind):
    viewer, views = session.viewer, views_of(session)
    active(viewer, kind)
    canvas = canvas_widget(viewer)

    def press(key):
        qtbot.keyClick(canvas, key, ALT)

    for key, role in ((Qt.Key.Key_1, "teacher"), (Qt.Key.Key_3, "student"), (Qt.Key.Key_4, "disagreement")):
        before = find(viewer, role).visible
        press(key)
        assert find(viewer, role).visible is not before
        press(key)
    for key, view in ((Qt.Key.Key_7, "curtain"), (Qt.Key.Key_9, "flicker"), (Qt.Key.Key_8, "side by side")):
        press(key)
        assert views.view == view
    press(Qt.Key.Key_5)
    assert views.view == "overlay"
    qtbot.keyPress(canvas, Qt.Key.Key_6, ALT)
    assert views.view == "lens"
    qtbot.keyRelease(canvas, Qt.Key.Key_6, ALT)
    qtbot.waitUntil(lambda: views.view == "overlay", timeout=2000)
    drawing = views.drawing
    press(Qt.Key.Key_O)
    assert {drawing, views.drawing} == {"outline", "fill"}
    seen = set()
    for _ in range(4):
        press(Qt.Key.Key_M)
        seen.add(views.drawing)
    assert seen == {"none", "outline", "fill", "difference"}
    opacity = find(viewer, "teacher").opacity
    press(Qt.Key.Key_Down)
    assert find(viewer, "teacher").opacity == pytest.approx(opacity - 0.1)
    press(Qt.Key.Key_Up)
    assert find(viewer, "teacher").opacity == pytest.approx(opacity)


def test_peek_lasts_while_the_key_is_held(session, qtbot):
    viewer = session.viewer
    canvas = canvas_widget(viewer)
    white = viewer.add_image(np.full((64, 64, 3), 255, np.uint8), rgb=True, metadata={ROLE_KEY: "slide"})
    viewer.layers.move(viewer.layers.index(white), 0)

    def overlays_show():
        QApplication.processEvents()
        shot = viewer.screenshot(flash=False)
        return (shot[shot.shape[0] // 2, shot.shape[1] // 2, :3] != 255).any()

    assert overlays_show()
    qtbot.keyPress(canvas, Qt.Key.Key_0, ALT)
    assert not overlays_show()
    qtbot.keyRelease(canvas, Qt.Key.Key_0, ALT)
    qtbot.waitUntil(overlays_show, timeout=2000)


def test_keys_are_bound_while_there_are_layers_of_ours(viewer):
    session_of(viewer)
    ours = {coerce_keybinding(key) for key in KEYS}
    assert not ours & set(viewer.keymap)
    viewer.add_image(np.zeros((9, 9)))
    assert not ours & set(viewer.keymap)
    layer = viewer.add_labels(np.ones((9, 9), np.uint8), metadata={ROLE_KEY: "teacher"})
    assert ours <= set(viewer.keymap)
    viewer.layers.remove(layer)
    assert not ours & set(viewer.keymap)


def test_keys_take_nothing_from_napari(viewer):
    """Neither a shortcut of its viewer or layers, nor a letter that opens a menu, nor what the review list will have.

    But Alt+Up and Alt+Down: napari moves between the sliders of an image of more dimensions, which a slide has none of.
    """
    from napari._app_model import get_app_model
    from napari.utils.action_manager import action_manager

    ours = {coerce_keybinding(key) for key in KEYS}
    taken = {coerce_keybinding(key) for keys in action_manager._shortcuts.values() for key in keys}
    taken |= {binding.keybinding for binding in get_app_model().keybindings}
    for kind in LAYERS:
        active(viewer, kind)
        taken |= set(viewer.layers[-1].keymap) | set(type(viewer.layers[-1]).class_keymap)
    titles = [action.text() for action in viewer.window._qt_window.menuBar().actions()]
    letters = {title[title.index("&") + 1] for title in titles if "&" in title}
    assert letters >= set("FVLPWH")
    taken |= {coerce_keybinding(f"Alt-{letter}") for letter in letters}
    taken |= {coerce_keybinding(key) for key in REVIEW_KEYS}
    assert len(taken) > 60
    assert ours & taken == {coerce_keybinding("Alt-Up"), coerce_keybinding("Alt-Down")}
