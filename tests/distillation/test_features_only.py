"""Methods with an encoder as teacher: those that compare features train, the others say what to do instead."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_kdseg.distillation import View, get_method, method_names
from napari_kdseg.errors import ConfigurationError
from napari_kdseg.networks import create

WORK = {
    "at", "at:authors", "at:cirkd", "coco:cmss", "coco:cocod", "coco:ss", "cwd:features", "emkd-paper:imd",
    "emkd-paper:imd+rad", "emkd-paper:rad", "emkd:imd", "emkd:imd+rad", "emkd:rad", "fitnet", "fitnet:middle", "fsp",
    "ifvd", "ifvd:authors", "mgd", "mgd:authors", "mimic", "pa", "pa:authors", "pa:cirkd", "skd:pair", "spkd",
}  # fmt: skip


def encoder():
    torch.manual_seed(1)
    return create("foundation/uni", depth=4, embed_dim=24, num_heads=2)


def stages(name: str, size: int = 64, student: str = "enet"):
    torch.manual_seed(2)
    method = get_method(name)
    views = [View(factor=0.5)]
    return method.stages(encoder(), create(student), input_shape=(3, size, size), views=views, seed=3)


@pytest.mark.parametrize("name", sorted(WORK))
def test_methods_on_features_move_the_student(name):
    """The gradient of the distillation terms alone reaches the student."""
    made = stages(name)
    target = torch.randint(0, 2, (2, 64, 64))
    for stage in made:
        stage.begin_epoch(0, 1)
        values = stage.loss(torch.rand(2, 3, 64, 64), target)
        assert torch.isfinite(values["loss"])
    sum(value for key, value in values.items() if key.startswith("weighted/")).backward()
    learned = [p for p in made[-1].network.parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert len(learned) > 5


@pytest.mark.parametrize("name", sorted({*method_names()} - WORK - {"alone"}))
def test_methods_that_read_classes_say_what_to_do(name):
    with pytest.raises(ConfigurationError, match=r"reads the teacher's classes.*kd\+fitnet@2"):
        stages(name)


def test_what_a_method_declares_decides_not_its_name():
    """Assistants are copies of the teacher, whatever the method that has them is called."""
    ours = replace(get_method("plc-kd"), name="ours")
    with pytest.raises(ConfigurationError, match="The method 'ours' reads the teacher's classes"):
        ours.stages(encoder(), create("enet"), input_shape=(3, 64, 64))
    fitnet = replace(get_method("fitnet"), name="plc-kd-fitnet")
    assert fitnet.stages(encoder(), create("enet"), input_shape=(3, 64, 64))


def test_features_are_compared_on_the_grid_of_the_encoder():
    stage = stages("fitnet")[-1]
    (connector,) = stage.connectors.values()
    student = torch.rand(2, 16, 64, 64)
    (made,) = connector(student)
    assert made.shape == (2, 24, 2, 2), "32 pixels are two patches"


def test_an_encoder_beside_a_segmentation_teacher():
    torch.manual_seed(4)
    teachers = [create("unet/resnet18"), encoder()]
    (stage,) = get_method("kd+fitnet@2").stages(teachers, create("enet"), input_shape=(3, 64, 64))
    values = stage.loss(torch.rand(2, 3, 64, 64), torch.randint(0, 2, (2, 64, 64)))
    assert {"kd", "fitnet"} <= set(values)
    with pytest.raises(ConfigurationError, match="puts out features alone"):
        get_method("fitnet+kd@2").stages(teachers, create("enet"), input_shape=(3, 64, 64))
