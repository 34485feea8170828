"""What runs of a study need of a distillation: few validations, another's stages, a shared memory, a short report."""

from __future__ import annotations

import json

import torch

from napari_kdseg.jobs import Done, Step, Validated, run_inline
from napari_kdseg.networks import NetworkSpec, create_from, load, save
from napari_kdseg.training import DataConfig, DistillConfig, NetworkChoice, distill

QUIET = {"stain_probability": 0, "light_probability": 0, "blur_probability": 0, "scale_probability": 0}


def test_a_run_takes_the_stages_and_the_memory_of_another(make_tiles, tmp_path):
    """The student becomes the same as if its own run had trained the assistants and asked the teacher."""
    options = {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}
    spec = NetworkSpec(architecture="unet/tu-resnet18", classes=("background", "foreground"), options=options)
    torch.manual_seed(0)
    teacher = save(tmp_path / "teacher.safetensors", create_from(spec), spec)
    config = DistillConfig(
        data=DataConfig(folder=make_tiles(12), input_size=32, test_fraction=0.2),
        teacher=NetworkChoice(checkpoint=teacher),
        settings={"assistant_epochs_factor": 0.34, "queue_length": 64},
        epochs=3,
        validate_every=2,
        batch_size=4,
        augmentation=QUIET,
        remember_teacher=True,
        memory=tmp_path / "memory",
        report="student",
        previews=False,
        threads=torch.get_num_threads(),
        output=tmp_path / "first",
    )
    first = run_inline(distill, config)
    assert isinstance(first.end, Done), first.end
    judged = [
        event.epoch for event in first.history if isinstance(event, Validated) and event.stage == "student"
    ]
    assert judged == [2, 3], "every second epoch, and the last"
    summary = json.loads((config.output / "report" / "summary.json").read_text())
    assert {"test_dice", "val_dice"} <= set(summary["networks"]["student"]["metrics"])
    assert "test_hd95_px" not in summary["networks"]["student"]["metrics"]
    assert summary["networks"]["teacher"]["metrics"] == {}
    remembered = sorted(path for path in (tmp_path / "memory").rglob("*.safetensors"))
    assert remembered, "a shared memory stays"

    names = ("false_pixel_assistant", "boundary_assistant")
    stages = {name: config.output / "checkpoints" / f"{name}.safetensors" for name in names}
    changes = {"trained_stages": stages, "output": tmp_path / "second"}
    second = run_inline(distill, config.model_copy(update=changes))
    assert isinstance(second.end, Done), second.end
    assert {event.stage for event in second.history if isinstance(event, Step)} == {"student"}
    assert sorted((tmp_path / "memory").rglob("*.safetensors")) == remembered, "nobody was asked again"
    one, other = (
        load(tmp_path / name / "checkpoints" / "student.safetensors").module.state_dict()
        for name in ("first", "second")
    )
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-4, atol=1e-5)
