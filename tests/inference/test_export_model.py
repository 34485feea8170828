"""A student leaves as ONNX, ExportedProgram and safetensors with its card, and its ONNX file predicts like itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from napari_kdseg.inference import PredictConfig, predict
from napari_kdseg.inference.export import ExportModelConfig, describe_onnx, export_model
from napari_kdseg.inference.measuring.receptive_field import _reach, _reach_by_change
from napari_kdseg.inference.network.loading import loaded_network
from napari_kdseg.jobs import Done, Failed, run_inline
from napari_kdseg.masks import open_masks
from napari_kdseg.networks import NetworkSpec, load

onnx = pytest.importorskip("onnx", reason="needs the extra 'onnx'")
pytest.importorskip("onnxscript", reason="needs the extra 'onnx'")
pytest.importorskip("onnxruntime", reason="needs the extra 'onnx'")

SLIDE = "synthetic:600x400?seed=1&mpp=0.5"


def run(job, config):
    end = run_inline(job, config).end
    assert isinstance(end, Done), end.details
    return end.result


@pytest.fixture(scope="module")
def student(tmp_path_factory, checkpoint):
    """A run folder with a student, and everything it is exported as."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "checkpoints").mkdir()
    (folder / "report").mkdir()
    path = folder / "checkpoints" / "student.safetensors"
    path.write_bytes(checkpoint.read_bytes())
    config = {
        "method": "plc-kd", "data": {"folder": "/secret/place/glands"}, "epochs": 7,
        "teacher": {"architecture": "unet/resnet34"}, "student": {"architecture": "enet"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    summary = {
        "tiles": {"train": 12},
        "reference": "A paper.",
        "networks": {"student": {"metrics": {"test_dice": 0.87654, "test_hd95": None}}},
    }
    (folder / "report" / "summary.json").write_text(json.dumps(summary))
    result = run(export_model, ExportModelConfig(checkpoint=path, output=folder / "out"))
    return path, result


def test_every_file_is_written_and_equal(student):
    path, result = student
    names = [file.name for file in result.files]
    assert names == ["student.onnx", "student.pt2", "student.safetensors", "README.md"]
    assert all(file.stat().st_size for file in result.files)
    assert not [item for item in result.files[0].parent.iterdir() if item.name not in names]
    assert result.differences["safetensors"] == 0
    image = torch.randn(2, 3, 72, 40)
    with torch.inference_mode():
        wanted = load(path).module(image)
        program = torch.export.load(result.files[1]).module()
        assert torch.allclose(program(image), wanted, atol=1e-5)
        assert load(result.files[2]).spec == load(result.files[0]).spec == load(path).spec


def test_the_card_tells_what_the_run_folder_knows(student):
    card = student[1].files[-1].read_text()
    for fact in (
        "Not for diagnosis", "plc-kd", "unet/resnet34", "A paper.", "| tiles for train | 12 |", "0.8765", "class 1",
        "| micrometres per pixel | 0.5 |", "624 px around every pixel", "multiples of 8 px", "glands", "349,",
    ):  # fmt: skip
        assert fact in card, fact
    assert "/secret" not in card
    assert "nan" not in card.lower().split()


def test_the_mask_of_the_onnx_student_is_that_of_the_student(student, tmp_path):
    path, result = student
    config = PredictConfig(
        slide=SLIDE, networks={"torch": path, "onnx": result.files[0]}, output=tmp_path / "slide.ome.zarr",
        tile=128, halo=64, batch_size=2, precision="float32", probabilities=True, skip_background=False,
    )  # fmt: skip
    masks = run(predict, config).masks
    assert masks["onnx"].plan.arithmetic == "float32"
    opened = open_masks(tmp_path / "slide.ome.zarr")
    torch_mask, onnx_mask = (np.asarray(opened[name].levels[0]) for name in ("torch", "onnx"))
    chance = np.asarray(opened["probabilities/torch"].levels[0]) / 254
    assert len(np.unique(torch_mask)) > 1
    differ = torch_mask != onnx_mask
    assert differ.mean() < 0.001
    assert chance[differ].max(initial=0) < 0.55  # only where classes tie


def test_what_was_measured_at_export_is_not_measured_again(student, tmp_path):
    config = PredictConfig(
        slide=SLIDE, networks={"onnx": student[1].files[0]}, output=tmp_path / "slide.ome.zarr", region=(0, 0, 64, 64),
        tile=64, halo="exact", batch_size=1,
    )  # fmt: skip
    plan = run(predict, config).masks["onnx"].plan
    assert plan.arithmetic == "float32"
    assert plan.context.radius == plan.context.halo == 624


def test_other_arithmetic_is_refused(student, tmp_path):
    config = PredictConfig(
        slide=SLIDE, networks={"onnx": student[1].files[0]}, output=tmp_path / "slide.ome.zarr", precision="bfloat16"
    )  # fmt: skip
    end = run_inline(predict, config).end
    assert isinstance(end, Failed)
    assert "float32 only" in end.message


def test_what_is_in_the_way_stays_unless_it_may_go(student):
    path, result = student
    before = result.files[0].read_bytes()
    config = ExportModelConfig(checkpoint=path, output=result.files[0].parent, formats=("safetensors",))
    end = run_inline(export_model, config).end
    assert isinstance(end, Failed)
    assert end.error == "InTheWayError"
    run(export_model, config.model_copy(update={"overwrite": True}))
    assert result.files[0].read_bytes() == before


def test_an_onnx_file_is_not_exported_again_and_a_checkpoint_not_replaced(student, tmp_path):
    path, result = student
    end = run_inline(export_model, ExportModelConfig(checkpoint=result.files[0], output=tmp_path / "o")).end
    assert "an ONNX file already" in end.message
    config = ExportModelConfig(checkpoint=path, output=path.parent, overwrite=True)
    assert "would be replaced" in run_inline(export_model, config).end.message


def test_reach_by_change_is_that_by_gradient(checkpoint):
    torch.manual_seed(0)
    pooled = nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.MaxPool2d(4), nn.Upsample(scale_factor=4)).eval()
    for network, multiple in ((pooled, 4), (nn.Conv2d(3, 2, 9, padding=4), 1)):
        by_gradient, by_change = (
            max(measure(network, 3, 40, multiple, axis) for axis in (0, 1))
            for measure in (_reach, _reach_by_change)
        )
        assert -(-by_gradient // multiple) == -(-by_change // multiple)


def test_a_described_copy_of_another_program_s_file_predicts(student, tmp_path):
    stripped = onnx.load(str(student[1].files[0]))
    del stripped.metadata_props[:]
    onnx.save(stripped, str(tmp_path / "theirs.onnx"))
    spec = NetworkSpec(architecture="onnx", classes=("background", "a", "b"), mpp=0.5)
    facts = describe_onnx(tmp_path / "theirs.onnx", tmp_path / "ours.onnx", spec, 8)
    assert facts.radius == 624
    network = loaded_network(tmp_path / "ours.onnx", torch.device("cpu"))
    assert network.multiple == 8
    assert network.spec.classes == ("background", "a", "b")
