"""Networks people bring, in the docks: what weights are is asked, code is allowed by a button, encoders are offered."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from napari_kdseg.networks import NetworkSpec, allowed_code, create, inspect, save

WAIT = 60_000
OWN = "python:own_networks:Plain"


@pytest.fixture
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "networks"))
    monkeypatch.setenv("KDSEG_ALLOW_CODE", "")


def test_weights_that_do_not_say_what_they_are_are_told_once(dock, qtbot, tmp_path):
    state = {f"model.{k}": v for k, v in create("enet").state_dict().items()} | {"loss.weight": torch.ones(2)}
    torch.save(state, tmp_path / "x.ckpt")
    card = dock("2 Models").cards["teacher"]
    card._load(str(tmp_path / "x.ckpt"))
    qtbot.waitUntil(card.weights.isVisible, timeout=WAIT)
    assert "does not say of which network" in card.weights.note.text()
    card.weights.read.click()
    assert "classes" in card.weights.note.text(), "none were named"
    card.weights.architecture.setCurrentText("unet/resnet18")
    card.weights.classes.setText("background, tumour")
    card.weights.mpp.setText("0.5")
    card.weights.read.click()
    qtbot.waitUntil(
        lambda: "does not hold the weights of unet/resnet18" in card.weights.note.text(), timeout=WAIT
    )
    card.weights.architecture.setCurrentText("enet")
    card.weights.read.click()
    qtbot.waitUntil(lambda: "teacher" in card.session.models, timeout=WAIT)
    model = card.session.models["teacher"]
    assert inspect(model.path).classes == ("background", "tumour")
    assert model.spec.mpp == 0.5
    assert not card.weights.isVisible()
    assert "Left out, because it lies beside the network: loss.weight." in card.facts.text()


def test_code_is_run_after_the_button_and_not_before(dock, qtbot, tmp_path, importable, monkeypatch):
    spec = NetworkSpec(architecture=OWN, classes=("background", "tumour"))
    monkeypatch.setenv("KDSEG_ALLOW_CODE", "own_networks")
    path = save(tmp_path / "own.safetensors", create(OWN), spec)
    monkeypatch.setenv("KDSEG_ALLOW_CODE", "")
    card = dock("2 Models").cards["student"]
    card._load(str(path))
    qtbot.waitUntil(card.question.isVisible, timeout=WAIT)
    assert "the class own_networks:Plain" in card.question.note.text()
    assert "student" not in card.session.models
    card.question.allow.click()
    qtbot.waitUntil(lambda: "student" in card.session.models, timeout=WAIT)
    assert allowed_code() == ["own_networks:Plain"]
    assert not card.question.isVisible()


def test_a_run_with_code_of_others_asks_first(dock, tmp_path, importable):
    distil = dock("3 Distil")
    distil.folder.set_path(tmp_path)
    distil.method.setCurrentText("kd")
    distil.networks.student.architecture.setCurrentText(OWN)
    assert distil.start() is None
    assert distil.problem.text() == ""
    assert not distil.question.isHidden()
    assert "own_networks:Plain" in distil.question.note.text()
    assert "distil" not in distil.session.jobs


def test_an_encoder_and_plain_weights_keep_their_architecture(dock, tmp_path):
    torch.save(create("enet").state_dict(), tmp_path / "enet.pth")
    torch.save({"cls_token": torch.zeros(1)}, tmp_path / "uni.bin")
    own = save(
        tmp_path / "own.safetensors", create("enet"), NetworkSpec(architecture="enet", classes=("a", "b"))
    )
    row = dock("3 Distil").networks.teacher
    row.architecture.setCurrentText("foundation/uni")
    row.checkpoint.set_path(tmp_path / "uni.bin")
    row.form.fill({"new_head": True})
    values = row.values()
    assert (values["architecture"], values["checkpoint"]) == ("foundation/uni", str(tmp_path / "uni.bin"))
    assert values["new_head"]
    row.checkpoint.set_path(own)
    assert "architecture" not in row.values(), "this file says what it is"
    row.checkpoint.set_path("")
    row.encoder_weights.set_path(tmp_path / "enet.pth")
    assert row.values()["encoder_weights"] == str(tmp_path / "enet.pth")
