"""Teachers that people bring: a foundation encoder, a module of their own, weights of others; through the real job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from napari_kdseg.jobs import Cancelled, Done, Failed, Message, RunningJob, Step, run_inline, run_job
from napari_kdseg.networks import NetworkSpec, create, create_from, inspect, load, save
from napari_kdseg.training import DataConfig, DistillConfig, distill

TINY = {"depth": 4, "embed_dim": 24, "num_heads": 2}
OWN = "python:own_networks:Dict"
STUDENTS = {
    "enet": {"architecture": "enet"},
    "smp": {"architecture": "unet/resnet18", "options": {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}},
}


@pytest.fixture
def allowed(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "networks"))
    monkeypatch.setenv("KDSEG_ALLOW_CODE", "own_networks")


@pytest.fixture
def uni(tmp_path):
    torch.manual_seed(1)
    network = create("foundation/uni", **TINY)
    torch.save(network.vit.state_dict(), tmp_path / "uni.bin")
    return {"architecture": "foundation/uni", "checkpoint": tmp_path / "uni.bin", "options": TINY}


@pytest.fixture
def config(make_tiles, tmp_path):
    """10 tiles to train on in two batches, seen at 32 pixels."""

    def make(**changes):
        data = DataConfig(folder=make_tiles(12, size=64), input_size=32, **changes.pop("data", {}))
        values = {
            "epochs": 1,
            "batch_size": 5,
            "augment": False,
            "previews": False,
            "threads": torch.get_num_threads(),
            "output": tmp_path / "run",
        }
        return DistillConfig(data=data, **(values | changes))

    return make


def steps(running, stage="student"):
    return [event for event in running.history if isinstance(event, Step) and event.stage == stage]


def said(running):
    return " ".join(event.text for event in running.history if isinstance(event, Message))


@pytest.mark.parametrize("student", STUDENTS)
def test_a_foundation_encoder_teaches_alone(student, config, uni, tmp_path):
    running = run_inline(distill, config(teacher=uni, student=STUDENTS[student], method="fitnet"))
    assert isinstance(running.end, Done), running.end
    assert len(steps(running)) == 2
    assert steps(running)[0].values["fitnet"] > 0
    assert "foundation/uni sees 224 x 224 pixels: 14 x 14 patches of 16 pixels." in said(running)
    assert set(running.end.result.metrics) == {"student"}, "an encoder has no Dice"
    assert not (tmp_path / "run" / "checkpoints" / "teacher.safetensors").exists()
    assert inspect(running.end.result.checkpoints["student"]).input_size == 32


def test_a_foundation_encoder_beside_a_segmentation_teacher(config, uni, tmp_path):
    spec = NetworkSpec(
        architecture="enet", classes=("background", "gland"), mean=(0.4, 0.4, 0.4), std=(0.3, 0.3, 0.3)
    )
    teacher = save(tmp_path / "teacher.safetensors", create_from(spec), spec)
    running = run_inline(
        distill,
        config(
            teacher={"checkpoint": teacher}, more_teachers=[{**uni, "input_size": 64}], method="kd+mimic@2",
            student=STUDENTS["enet"],
        ),
    )  # fmt: skip
    assert isinstance(running.end, Done), running.end
    assert {"kd", "mimic"} <= set(steps(running)[0].values)
    assert "4 x 4 patches" in said(running)
    assert inspect(running.end.result.checkpoints["student"]).mean == (0.4, 0.4, 0.4)


def test_an_encoder_sees_tiles_at_its_own_magnification(config, uni):
    """Tiles of 64 pixels at 1 µm are 128 pixels at the 0.5 µm of UNI."""
    running = run_inline(distill, config(teacher=uni, method="spkd", data={"mpp": 1.0}))
    assert isinstance(running.end, Done), running.end
    assert "sees 128 x 128 pixels at 0.5 µm per pixel: 8 x 8 patches" in said(running)


@pytest.mark.parametrize("student", STUDENTS)
def test_a_module_of_their_own_teaches(student, config, allowed, tmp_path):
    torch.manual_seed(2)
    network = create(OWN, width=6)
    torch.save(
        {"state_dict": {f"model.{k}": v for k, v in network.network.state_dict().items()}},
        tmp_path / "own.ckpt",
    )
    teacher = {
        "architecture": OWN,
        "checkpoint": tmp_path / "own.ckpt",
        "options": {"width": 6},
        "multiple": 2,
    }
    running = run_inline(distill, config(teacher=teacher, student=STUDENTS[student], method="kd+fitnet"))
    assert isinstance(running.end, Done), running.end
    assert len(steps(running)) == 2
    kept = load(running.end.result.checkpoints["teacher"])
    assert kept.spec.architecture == OWN
    assert torch.equal(kept.module.state_dict()["network.head.weight"], network.network.head.weight)


def test_code_nobody_allowed_is_not_run(config):
    running = run_inline(distill, config(teacher={"architecture": OWN}, method="kd"))
    assert isinstance(running.end, Failed)
    assert "--allow-code own_networks:Dict" in running.end.message


def test_a_module_of_their_own_learns(config, allowed):
    running = run_inline(
        distill,
        config(
            teacher={"architecture": "enet"}, student={"architecture": OWN}, method="kd", teacher_epochs=1
        ),
    )
    assert isinstance(running.end, Done), running.end
    assert load(running.end.result.checkpoints["student"]).spec.architecture == OWN


@pytest.fixture
def of_three_classes(tmp_path):
    torch.manual_seed(3)
    spec = NetworkSpec(architecture="enet", classes=("background", "a", "b"))
    return save(tmp_path / "three.safetensors", create_from(spec), spec)


def test_a_teacher_of_other_classes_is_refused_or_gets_a_new_head_and_is_trained(
    config, of_three_classes, tmp_path
):
    given = {"checkpoint": of_three_classes}
    classes = {"classes": ("background", "gland")}
    first = config(teacher=given, method="kd", data=classes)
    running = run_inline(distill, first)
    assert isinstance(running.end, Failed)
    assert "ask for a new head" in running.end.message
    values = first.model_dump() | {
        "teacher": {**given, "new_head": True},
        "teacher_epochs": 1,
        "output": tmp_path / "2",
    }
    running = run_inline(distill, DistillConfig.model_validate(values))
    assert isinstance(running.end, Done), running.end
    assert len(steps(running, "teacher")) == 2, "it is trained"
    assert "gets a new head (classifier.weight), which is trained here" in said(running)
    assert inspect(running.end.result.checkpoints["teacher"]).classes == ("background", "gland")


def test_a_new_head_is_the_same_after_a_stop(config, of_three_classes, tmp_path):
    base = config(
        teacher={"checkpoint": of_three_classes, "new_head": True}, method="kd", teacher_epochs=2,epochs=1,
        data={"classes": ("background", "gland")},
    )  # fmt: skip
    whole = run_inline(distill, base)
    assert isinstance(whole.end, Done), whole.end
    again = DistillConfig.model_validate(base.model_dump() | {"output": tmp_path / "stopped"})
    running = RunningJob()
    running.observe(
        lambda event: (
            running.control.cancel()
            if isinstance(event, Step) and event.stage == "teacher" and event.done == 3
            else None
        )
    )
    assert isinstance(run_job(distill, again, running.emit, running.control), Cancelled)
    assert isinstance(run_inline(distill, again).end, Done)
    curves = [curve(base.output), curve(again.output)]
    assert curves[0] == curves[1]


def curve(folder):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{**r, "values": {k: v for k, v in r["values"].items() if k != "images_per_s"}} for r in records]


def test_a_student_starts_from_pretrained_weights_of_its_encoder(config, tmp_path):
    import torchvision

    pretrained = torchvision.models.resnet18(weights=None)
    torch.save(pretrained.state_dict(), tmp_path / "resnet18.pth")
    student = {"architecture": "linknet/resnet18", "encoder_weights": tmp_path / "resnet18.pth"}
    first = config(student=student, method="alone", optimiser={"learning_rate": 1e-9})
    running = run_inline(distill, first)
    assert isinstance(running.end, Done), running.end
    made = load(running.end.result.checkpoints["student"]).module.encoder.state_dict()
    torch.testing.assert_close(made["layer4.1.conv2.weight"], pretrained.layer4[1].conv2.weight.detach())
    student["architecture"] = "linknet/resnet34"
    values = first.model_dump() | {"student": student, "output": tmp_path / "other"}
    running = run_inline(distill, DistillConfig.model_validate(values))
    assert isinstance(running.end, Failed)
    assert "does not hold the weights of this encoder" in running.end.message


def test_what_cannot_be_is_refused_before_anything_is_read(uni, tmp_path):
    data = {"folder": tmp_path}
    with pytest.raises(ValidationError, match="puts out features, not classes, so it cannot be the student"):
        DistillConfig(data=data, student=uni)
    with pytest.raises(ValidationError, match="teaches nothing without its weights"):
        DistillConfig(data=data, teacher={"architecture": "foundation/uni"})


def test_methods_that_read_classes_say_so_before_training(config, uni):
    running = run_inline(distill, config(teacher=uni, method="kd"))
    assert isinstance(running.end, Failed)
    assert "puts out features alone" in running.end.message
