"""Predictions in the window: they queue, follow the view, pause, and are ready before they are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from napari_kdseg.jobs import Cancelled, Done, Step
from napari_kdseg.widgets import binding as layers
from napari_kdseg.widgets.binding import session_of
from napari_kdseg.widgets.models_dock.dock import ModelsDock, drawn_regions

WAIT = 60_000
SLIDE = "synthetic:1500x1000?seed=1&mpp=0.5"


@pytest.fixture
def models(viewer, dock, qtbot, network):
    """The Models dock with a slide, and a network that is both teacher and student."""
    opened = dock("2 Models")
    session = session_of(viewer)
    session.open_slide(SLIDE)
    path = str(network(2))
    for role in ("teacher", "student"):
        opened.cards[role]._load(path)
    qtbot.waitUntil(lambda: len(session.models) == 2 and session.masks_path() is not None, timeout=WAIT)
    return opened


def quick(models, monkeypatch):
    """Small tiles that need no measuring."""
    made = models._config

    def config(roles, region):
        return made(roles, region).model_copy(
            update={
                "tile": 128,
                "halo": 16,
                "batch_size": 1,
                "precision": "float32",
                "skip_background": False,
            }
        )

    monkeypatch.setattr(models, "_config", config)


def test_predictions_come_one_after_another(models, qtbot, monkeypatch):
    quick(models, monkeypatch)
    line = models.session.predictions
    first = models.predict(["teacher"], whole=True)
    first.pause_or_resume()
    second = models.predict(["student"], whole=True)
    assert models.predict(["student"], whole=True) is None, "it is in the line already"
    third = models.predict(["teacher", "student"], whole=False)
    assert [job.waiting for job in (first, second, third)] == [False, True, True]
    assert "waits" in models.cards["student"].running.progress.format()
    assert line.ahead_of(third) == 2
    with qtbot.waitSignal(third.ended, timeout=WAIT) as ended:
        third.cancel()
    assert isinstance(ended.args[0], Cancelled)
    with qtbot.waitSignals([first.ended, second.ended], timeout=WAIT):
        first.pause_or_resume()
    assert isinstance(second.running.end, Done), second.running.end
    assert not line.jobs
    assert not models.cards["student"].running.isVisible()


def test_one_pass_shows_both_masks(models, viewer, qtbot, monkeypatch):
    quick(models, monkeypatch)
    both = models.predict(["teacher", "student"], whole=True)
    with qtbot.waitSignal(both.ended, timeout=WAIT):
        pass
    assert isinstance(both.running.end, Done), both.running.end
    qtbot.waitUntil(lambda: layers.find(viewer, "disagreement") is not None, timeout=WAIT)
    one, other = (np.asarray(layers.find(viewer, role).data[0]) for role in ("teacher", "student"))
    np.testing.assert_array_equal(one, other)
    stages = [event.stage for event in both.history if isinstance(event, Step)]
    assert stages.count("teacher") == stages.count("student")


def test_what_is_looked_at_comes_first(models, viewer, qtbot, monkeypatch):
    quick(models, monkeypatch)
    viewer.scene.camera.center = (450.0, 700.0)  # µm: the lower right of the slide
    viewer.scene.camera.zoom = 20
    job = models.predict(["student"], whole=True)
    with qtbot.waitSignal(job.ended, timeout=WAIT):
        pass
    first = next(event for event in job.history if isinstance(event, Step) and event.values["mpx_per_s"] > 0)
    y, x, height, width = (first.values[key] for key in "yxhw")
    assert abs(y + height / 2 - 900) < 128
    assert abs(x + width / 2 - 1400) < 128


def test_drawn_regions_come_next(models, viewer):
    viewer.add_shapes([np.array([[100.0, 200.0], [100.0, 300.0], [150.0, 300.0]])], shape_type="polygon")
    ((y, x, height, width),) = drawn_regions(viewer, models.session.slide)
    assert (abs(y - 200) <= 1, abs(x - 400) <= 1) == (True, True)
    assert (abs(height - 100) <= 2, abs(width - 200) <= 2) == (True, True)


def test_networks_are_made_ready(models, qtbot, monkeypatch):
    monkeypatch.setattr(ModelsDock, "gets_ready", True)
    small = models._config(["student"], None).model_copy(
        update={"halo": 16, "tile": 64, "precision": "float32"}
    )
    monkeypatch.setattr(models, "_config", lambda roles, region: small)
    models._get_ready()
    qtbot.waitUntil(lambda: "for this slide" in models.cards["student"].readiness.text(), timeout=WAIT)
