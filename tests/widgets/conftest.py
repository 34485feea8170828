"""Docks under a real event loop: settings and results go to a temporary folder."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from napari_kdseg.networks import NetworkSpec, create, save


@pytest.fixture(autouse=True)
def own_settings(tmp_path, monkeypatch):
    """Keep results, recent slides and last folders of a test out of the home folder."""
    from qtpy.QtCore import QSettings

    from napari_kdseg.widgets.models_dock.dock import ModelsDock
    from napari_kdseg.widgets.parts.cost_box import CostBox

    monkeypatch.setattr(CostBox, "measures", False)
    monkeypatch.setattr(ModelsDock, "gets_ready", False)  # seconds of a test that is about something else
    monkeypatch.setenv("KDSEG_HOME", str(tmp_path / "home"))
    for layout in (QSettings.Format.NativeFormat, QSettings.Format.IniFormat):
        QSettings.setPath(layout, QSettings.Scope.UserScope, str(tmp_path / "settings"))


@pytest.fixture
def viewer(make_napari_viewer, qtbot):
    """A viewer in a real window. Widgets get the proxy napari hands to plugins, so private access would show."""
    viewer = make_napari_viewer(show=True)
    yield viewer
    from napari.settings import get_settings

    from napari_kdseg.widgets.binding import session_of
    from napari_kdseg.widgets.state.background import pending

    session = session_of(viewer)
    for job in [*session.jobs.values(), *session.predictions.stop()]:
        job.cancel()
        job.running.join(60)
    qtbot.waitUntil(lambda: not pending(), timeout=60_000)
    # A slice that napari delivers after the window has closed keeps the window alive, which its fixture calls a leak.
    get_settings().experimental.async_ = False
    qtbot.waitUntil(lambda: all(layer.loaded for layer in viewer.layers), timeout=60_000)


@pytest.fixture
def dock(viewer):
    """Open a dock through the manifest."""
    return lambda name: viewer.window.add_plugin_dock_widget("napari-kdseg", name)[1]


@pytest.fixture(scope="session")
def draw_tissue():
    """A function ``(size, seed) -> image, mask``: pink squares with dark discs, learnt in a few steps."""
    return _draw_tissue


def _draw_tissue(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A pink square with dark discs and the mask of the discs: learnt in a few steps."""
    random = np.random.default_rng(seed)
    mask = Image.new("L", (size, size))
    pen = ImageDraw.Draw(mask)
    for _ in range(3):
        y, x = random.integers(0, size, 2)
        radius = int(random.integers(size // 8, size // 4))
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    labels = np.asarray(mask)
    colours = np.array([[235, 180, 205], [90, 40, 120]])
    image = colours[labels] + random.normal(0, 12, (size, size, 3))
    return np.clip(image, 0, 255).astype(np.uint8), labels


@pytest.fixture
def tiles(tmp_path):
    """A folder of 20 tiles of 64 px with masks."""
    folder = tmp_path / "tiles"
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for index in range(20):
        image, mask = _draw_tissue(64, index)
        Image.fromarray(image).save(folder / "images" / f"tile{index:02}.png")
        Image.fromarray(mask).save(folder / "masks" / f"tile{index:02}.png")
    return folder


@pytest.fixture
def network(tmp_path):
    """Write a small network of so many classes and return its path."""

    def write(classes: int):
        module = create("enet", classes=classes)
        path = tmp_path / f"{classes}.safetensors"
        return save(path, module, NetworkSpec(architecture="enet", classes=[f"c{i}" for i in range(classes)]))

    return write
