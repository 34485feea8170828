"""Old files in the window: a slide finds its masks, a run its cards, saved settings fill the form."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_kdseg.distillation import get_method
from napari_kdseg.masks import open_masks
from napari_kdseg.slides import open_slide
from napari_kdseg.training import DistillConfig
from napari_kdseg.widgets.binding import session_of
from napari_kdseg.widgets.state.loaded_models import ROLES
from napari_kdseg.widgets.state.team import load_run

WRITTEN = Path(__file__).parents[1] / "old_files" / "written"
WAIT = 60_000


@pytest.fixture
def old(tmp_path, monkeypatch) -> Path:
    """A copy of the old files, where the masks lie in the results folder under the name that the window gave them."""
    folder = tmp_path / "old"
    shutil.copytree(WRITTEN, folder)
    monkeypatch.setenv("KDSEG_HOME", str(folder / "home"))
    with open_slide(folder / "slide.tif") as slide:
        name = f"slide-{slide.identity()[:8]}.ome.zarr"
    shutil.copytree(folder / "masks" / "slide.ome.zarr", folder / "home" / "masks" / name)
    return folder


def test_a_slide_finds_its_old_masks(viewer, qtbot, old):
    masks = open_masks(old / "masks" / "slide.ome.zarr")
    expected = [mask.levels[0][:, :] for mask in (masks["teacher"], masks["student"], masks["mended_by"])]
    session = session_of(viewer)
    session.open_slide(str(old / "slide.tif"))

    def shown(pixels: np.ndarray) -> bool:
        """Whether a layer shows these classes."""
        return any(
            layer.multiscale and layer.data[0].shape == pixels.shape and (layer.data[0][:, :] == pixels).all()
            for layer in viewer.layers
        )

    for pixels in expected:
        assert len(np.unique(pixels)) > 1
        qtbot.waitUntil(lambda pixels=pixels: shown(pixels), timeout=WAIT)


def test_an_old_run_fills_the_cards(viewer, qtbot, old):
    session = session_of(viewer)
    load_run(session, old / "runs" / "finished")
    qtbot.waitUntil(lambda: set(session.models) == set(ROLES), timeout=WAIT)
    student = session.models["student"]
    assert student.spec.method == "plc-kd"
    assert student.parameters is None or student.parameters > 0


def test_saved_settings_fill_the_form_and_come_out_of_it(dock, old):
    """All that a run depends on; what the form does not show stays as it was saved."""
    distil = dock("3 Distil")
    path = old / "runs" / "stopped" / "config.json"
    distil.fill(DistillConfig.load(path))
    assert distil.configuration().differences(DistillConfig.load(path)) == []
    saved = json.loads(path.read_text())
    assert distil.method.currentText() == saved["method"]
    settings = distil.configuration().settings
    assert {name: settings[name] for name in saved["settings"]} == saved["settings"]
    defaults = get_method(saved["method"]).settings().model_dump(mode="json")
    came_later = settings.keys() - saved["settings"].keys()
    assert {name: settings[name] for name in came_later} == {name: defaults[name] for name in came_later}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Qt keeps settings in another form")
def test_what_the_window_remembers(dock, old, tmp_path):
    from napari_kdseg.widgets.state.remembered import _settings, last_folder

    place = Path(_settings().fileName())
    assert tmp_path in place.parents
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(old / "napari-kdseg.conf", place)
    _settings().sync()
    assert (last_folder("slide"), last_folder("config")) == ("/slides", "/settings")
    recent = dock("1 Slide").recent
    assert [recent.itemData(index) for index in range(1, recent.count())] == [
        "/slides/second.svs",
        "synthetic:3000x2000?seed=2&mpp=0.5",
    ]
