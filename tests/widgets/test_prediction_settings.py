"""Settings of a prediction come from the model of its job: what is added there can be set in the dock."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_kdseg.inference.config import PredictConfig
from napari_kdseg.settings import setting
from napari_kdseg.widgets.binding import session_of
from napari_kdseg.widgets.models_dock import dock as module

WAIT = 60_000


class Extended(PredictConfig):
    """A setting that somebody adds to the model, and nowhere else."""

    mirrored: bool = setting(False, "Mirrored", "Look at the mirrored tile, too.")


@pytest.fixture
def models(dock, viewer, qtbot, monkeypatch):
    """The Models dock with a slide; the network on its card is never loaded."""
    monkeypatch.setattr(module, "PredictConfig", Extended)
    monkeypatch.setattr(module.ModelsDock, "gets_ready", False)
    opened = dock("2 Models")
    session = session_of(viewer)
    session.open_slide("synthetic:1200x900")
    qtbot.waitUntil(lambda: session.masks_path() is not None, timeout=WAIT)
    session.models["student"] = type("Model", (), {"path": Path("student.safetensors")})()
    return opened


def test_every_setting_has_a_place(models):
    assert {*models.form.widgets, *module.HERE} == {*Extended.model_fields}
    assert models.form.widgets["mirrored"].label == "Mirrored"
    assert models.form.widgets["mirrored"].tooltip == "Look at the mirrored tile, too."


def test_what_is_set_reaches_the_prediction(models):
    assert models._config(["student"], None).model_dump(include={*models.form.widgets}) == (
        Extended.model_construct().model_dump(include={*models.form.widgets})
    )
    models.form.fill({"mirrored": True, "tile": 256, "probabilities": True})
    config = models._config(["student"], None)
    assert (config.mirrored, config.tile, config.probabilities) == (True, 256, True)


def test_a_value_that_cannot_be_is_said_on_the_card(models):
    models.form.fill({"tile": 7})
    assert models.predict(["student"], whole=True) is None
    assert not models.session.predictions.jobs
    assert "32" in models.cards["student"].problem.text()
