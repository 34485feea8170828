"""A slide in the window: right place, right colours, and no wait for pixels that are not decoded yet."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from napari.layers import Image
from napari.settings import get_settings

from napari_kdseg.slides import Slide, TileCache
from napari_kdseg.slides.readers.image_backend import ArrayBackend
from napari_kdseg.slides.readers.refusals import DamagedError
from napari_kdseg.widgets import binding as layers
from napari_kdseg.widgets import view
from napari_kdseg.widgets.binding import session_of
from napari_kdseg.widgets.state import session as session_module
from napari_kdseg.widgets.views.views import views_of

WAIT = 20_000


class SlowBackend(ArrayBackend):
    """A picture whose tiles are decoded only while its gate is open."""

    def __init__(self, pixels: np.ndarray):
        super().__init__(pixels)
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.metadata.fingerprint = "slow"

    def read_tile(self, level: int, row: int, column: int) -> np.ndarray:
        self.gate.wait(WAIT / 1000)
        self.threads.add(threading.current_thread().name)
        return super().read_tile(level, row, column)


def pattern(height: int, width: int) -> np.ndarray:
    """Every pixel has a colour of its own; brightfield by its mean."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y % 256, x % 256, 128 + (y // 256 * 16 + x // 256) % 128], axis=2).astype(np.uint8)


def displayed(layer) -> np.ndarray:
    return np.asarray(layer._slice.image.raw)


@pytest.fixture
def slow():
    """A slide of 5 x 5 tiles that has decoded its overview, and keeps nothing else in memory."""
    pixels = pattern(2560, 2560)
    backend = SlowBackend(pixels)
    cache = TileCache()
    slide = Slide(backend, "slow.png", cache=cache)
    made = layers.slide_layers(slide)
    cache.resize(0)
    cache.resize(2**28)
    backend.threads.clear()
    yield slide, backend, pixels, made
    slide.close()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_finer_tiles_arrive_and_the_window_never_waits(viewer, qtbot, slow, asynchronous):
    get_settings().experimental.async_ = asynchronous
    _, backend, pixels, made = slow
    exact: list[bool] = []
    finest = made[0][0][0]
    finest._read = _watched(finest._read, pixels, exact)
    layers.show_slide(viewer, made)
    layer = layers.find(viewer, "slide")

    def sharp() -> bool:
        (top, left), (bottom, right) = layer.corner_pixels
        return layer.data_level == 0 and np.array_equal(
            displayed(layer), pixels[top : bottom + 1, left : right + 1]
        )

    backend.gate.clear()
    viewer.scene.camera.center = (1200, 1200)
    viewer.scene.camera.zoom = 1.0
    qtbot.waitUntil(lambda: bool(exact), timeout=WAIT)
    assert not exact[0], "a coarser level should have been shown first, with no tile decoded"
    backend.gate.set()
    qtbot.waitUntil(sharp, timeout=WAIT)
    assert exact[-1]
    assert "MainThread" not in backend.threads
    assert get_settings().experimental.async_ is asynchronous


def test_every_pane_becomes_sharp(viewer, slow):
    _, _, pixels, made = slow
    layers.show_slide(viewer, made)
    for role in ("teacher", "student"):
        viewer.add_labels(np.ones((2560, 2560), np.uint8), name=role, metadata={layers.ROLE_KEY: role})
    views_of(session_of(viewer)).show("side by side")
    viewer.scene.camera.center = (1200, 1200)
    viewer.scene.camera.zoom = 1.0
    view.settle(viewer=viewer)
    panes = [layer for layer in viewer.layers if isinstance(layer, Image)]
    assert len(panes) == 2
    for layer in panes:
        (top, left), (bottom, right) = layer.corner_pixels
        assert layer.data_level == 0
        np.testing.assert_array_equal(displayed(layer), pixels[top : bottom + 1, left : right + 1])


def test_whoever_computes_with_a_layer_gets_the_pixels_as_they_are(viewer, slow):
    """Only what is drawn may be coarse for a moment."""
    _, _, pixels, made = slow
    layers.show_slide(viewer, made)
    levels = layers.find(viewer, "slide").data
    np.testing.assert_array_equal(levels[0][1000:2000, 1500:2500], pixels[1000:2000, 1500:2500])


def test_damage_is_said_once_and_counted(viewer, dock, qtbot, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(session_module, "show_warning", said.append)
    backend = SlowBackend(pattern(1024, 1024))
    good = backend.read_tile

    def read_tile(level, row, column):
        if row == 0:
            raise DamagedError("a marker is missing")
        return good(level, row, column)

    monkeypatch.setattr(backend, "read_tile", read_tile)
    slide_dock = dock("1 Slide")
    layers.show_slide(viewer, layers.slide_layers(Slide(backend, "torn.png", cache=TileCache())))
    qtbot.waitUntil(lambda: "2 tiles" in slide_dock.note.text(), timeout=WAIT)
    np.asarray(layers.find(viewer, "slide").data[0])
    assert len(said) == 1
    assert "a marker is missing" in said[0]
    assert "2 tiles of this file cannot be read" in slide_dock.note.text()


def _watched(read, pixels, exact):
    """Note of every read whether it gave the pixels as they are."""

    def watch(y, x, height, width):
        got = read(y, x, height, width)
        exact.append(np.array_equal(got, pixels[y : y + height, x : x + width]))
        return got

    return watch
