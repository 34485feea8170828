"""The layers of the masks keep up with what is on disk, whenever and however often they are asked to."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_kdseg.masks import MaskSpec, MaskStore, plan_tiles
from napari_kdseg.widgets.binding import session_of
from napari_kdseg.widgets.layers import overlays
from napari_kdseg.widgets.layers.placement import find
from napari_kdseg.widgets.state.background import pending

WAIT = 60_000
HEIGHT = 400


def write_mask(session, name):
    """Write a mask of ones of the session's slide into its store."""
    mask = MaskSpec("labels", name, "class", ("background", "gland"), ((0, 0, 0), (0, 158, 115)))
    store = MaskStore(session.masks_path(), session.slide)
    size = session.slide.shape
    with store.begin((mask,), shape=size, downsample=(1.0, 1.0), tile=512, made_by={}) as writer:
        for tile in plan_tiles(size, None, 512, 0):
            writer.write_tile(tile, [np.ones((tile.height, tile.width), np.uint8)])
        writer.finish(None)


@pytest.fixture
def session(viewer):
    return session_of(viewer)


def address(width):
    return f"synthetic:{width}x{HEIGHT}?seed=1&mpp=0.5"


@pytest.fixture
def opened(session, qtbot):
    """Open a synthetic slide of this width and wait until its masks could be shown."""

    def shown(width):
        there = session.slide is not None and session.slide.path == address(width)
        return there and session.masks_path() is not None

    def open_it(width):
        session.open_slide(address(width))
        qtbot.waitUntil(lambda: shown(width) and not pending(), timeout=WAIT)

    return open_it


class HeldReading:
    """Readings of a store that stay between the disk and the window until ``go_on`` is set."""

    def __init__(self, read_store):
        self.go_on = threading.Event()
        self.read = []
        self._read_store = read_store

    def __call__(self, path):
        found = self._read_store(path)
        self.read.append(path.name)
        assert self.go_on.wait(WAIT / 1000)
        return found

    def hold(self):
        self.go_on.clear()
        self.read.clear()


@pytest.fixture
def reading(monkeypatch):
    held = HeldReading(overlays.read_store)
    monkeypatch.setattr(overlays, "read_store", held)
    held.go_on.set()
    yield held
    held.go_on.set()


def test_what_came_during_a_refresh_is_drawn_after_it(viewer, session, opened, reading, qtbot):
    opened(600)
    write_mask(session, "teacher")
    reading.hold()
    session.refresh_masks()
    qtbot.waitUntil(lambda: len(reading.read) == 1, timeout=WAIT)
    write_mask(session, "student")  # the reading under way knows nothing of it
    for _ in range(3):
        session.refresh_masks()
    reading.go_on.set()
    qtbot.waitUntil(lambda: find(viewer, "student") is not None, timeout=WAIT)
    assert find(viewer, "disagreement") is not None
    qtbot.waitUntil(lambda: not pending(), timeout=WAIT)
    assert len(reading.read) == 2, "three requests during one reading are one more reading"


def test_a_slide_opened_during_a_refresh_gets_its_own_masks(viewer, session, opened, reading, qtbot):
    opened(500)
    write_mask(session, "student")
    opened(600)
    write_mask(session, "teacher")
    reading.hold()
    session.refresh_masks()
    qtbot.waitUntil(lambda: len(reading.read) == 1, timeout=WAIT)
    with qtbot.waitSignal(session.slide_identified, timeout=WAIT):
        session.open_slide(address(500))
    reading.go_on.set()
    qtbot.waitUntil(lambda: find(viewer, "student") is not None, timeout=WAIT)
    assert find(viewer, "teacher") is None, "it is of the slide before"
