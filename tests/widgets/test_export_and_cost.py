"""In the docks: what teacher and student cost, and a network that leaves."""

from __future__ import annotations

import pytest
from qtpy.QtWidgets import QLabel

from napari_kdseg.networks import NetworkSpec, create, save
from napari_kdseg.widgets.parts.cost_box import CostBox
from napari_kdseg.widgets.parts.export_model_box import JOB
from napari_kdseg.widgets.state.loaded_models import read_model

WAIT = 120_000


@pytest.fixture
def student(tmp_path):
    spec = NetworkSpec(architecture="enet", classes=("background", "tumour"), mpp=0.5)
    return save(tmp_path / "student.safetensors", create("enet"), spec)


def cells(box) -> list[str]:
    return [
        label.text() for label in box.findChildren(QLabel) if label is not box.note and label.isVisibleTo(box)
    ]


def test_distil_dock_shows_the_last_pair_that_was_chosen(dock, monkeypatch, qtbot):
    monkeypatch.setattr(CostBox, "measures", True)
    monkeypatch.setattr("napari_kdseg.widgets.parts.cost_box.SETTLED_MS", 10)
    distil = dock("3 Distil")
    distil.networks.teacher.architecture.setCurrentText("unet/resnet34")
    distil.networks.teacher.architecture.setCurrentText("enet")
    distil.networks.student.architecture.setCurrentText("enet")
    qtbot.waitUntil(lambda: "ratio" in cells(distil.cost), timeout=WAIT)
    shown = cells(distil.cost)
    assert shown[shown.index("parameters") + 1 :][:3] == ["0.35 M", "0.35 M", "1"]
    assert "Measured on" in distil.cost.note.text()
    distil.networks.student.architecture.setCurrentText("enett")
    assert "ratio" not in cells(distil.cost)
    qtbot.waitUntil(lambda: "Did you mean enet" in distil.cost.note.text(), timeout=WAIT)


def test_a_student_is_exported_from_its_card(dock, student, tmp_path, qtbot):
    models = dock("2 Models")
    card = models.cards["student"]
    assert not card.export.isVisibleTo(card)
    models.session.set_model("student", read_model(student))
    assert card.export.isVisibleTo(card)
    from napari_kdseg.inference.export import ExportModelConfig

    config = ExportModelConfig(checkpoint=student, output=tmp_path / "out", formats=("safetensors",))
    box = card.export
    job = box._follow(models.session.start("export model", "export", JOB, config))
    qtbot.waitUntil(lambda: not job.alive, timeout=WAIT)
    assert "Written to" in box.note.text(), box.note.text()
    assert (tmp_path / "out" / "README.md").is_file()
