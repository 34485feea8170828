"""Networks that see the same tile in their own way: other normalisation, other size, another stride of the output."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from napari_kdseg.distillation import (
    AloneSettings,
    StudentStage,
    Term,
    View,
    cross_entropy_dice,
    get_method,
    kd,
)
from napari_kdseg.networks import NetworkSpec, create, to_input

ONE, OTHER = ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)), ((0.7, 0.5, 0.4), (0.2, 0.3, 0.1))


def spec(statistics) -> NetworkSpec:
    return NetworkSpec(architecture="enet", classes=("a", "b"), mean=statistics[0], std=statistics[1])


def test_normalisation_is_that_of_the_other_network():
    tiles = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3), np.uint8)
    seen = View(ONE, OTHER)(to_input(tiles, spec(ONE)))
    torch.testing.assert_close(seen, to_input(tiles, spec(OTHER)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("view", [View(), View(ONE, ONE), View(None, OTHER)])
def test_a_view_that_changes_nothing_is_the_image_itself(view):
    image = torch.randn(1, 3, 5, 5)
    assert view(image) is image


@pytest.mark.parametrize("factor", [0.5, 2.0, 96 / 224])
def test_size(factor):
    image = torch.rand(1, 3, 56, 112)
    seen = View(factor=factor)(image)
    assert (
        seen.shape[1:]
        == View(factor=factor).shape((3, 56, 112))
        == (3, *(round(s * factor) for s in (56, 112)))
    )
    assert seen.mean().item() == pytest.approx(image.mean().item(), abs=0.01)
    if factor == 0.5:  # antialiased: far from every second pixel
        assert (seen - F.avg_pool2d(image, 2)).abs().mean() < 0.1 < (seen - image[..., ::2, ::2]).abs().mean()


def test_teacher_and_student_each_see_their_own(tiny_net):
    """The teacher sees the batch at its size and normalisation; the student half as sharply."""
    teacher, student = tiny_net(1).eval(), tiny_net(2).eval()
    image, target = torch.randn(2, 3, 16, 16), torch.randint(0, 2, (2, 16, 16))
    stage = StudentStage(
        student,
        AloneSettings(),
        [Term("kd", kd)],
        teachers=[teacher],
        views=[View(ONE, OTHER)],
        view=View(factor=0.5),
        input_shape=(3, 16, 16),
    )
    stage.network.eval()
    values = stage.loss(image, target)
    seen = F.interpolate(image, size=(8, 8), mode="bilinear", align_corners=False, antialias=True)
    renormalised = (
        image * torch.tensor(ONE[1])[:, None, None] + torch.tensor(ONE[0])[:, None, None]
    ) - torch.tensor(OTHER[0])[:, None, None]
    logits = teacher(renormalised / torch.tensor(OTHER[1])[:, None, None])
    coarse = target[:, ::2, ::2]
    torch.testing.assert_close(values["segmentation"], cross_entropy_dice(student(seen), coarse))
    smaller = F.interpolate(logits, size=(8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(values["kd"], kd(student(seen), smaller, coarse), rtol=1e-4, atol=1e-6)


class Coarse(nn.Module):
    """Answers at a quarter of the image's size, as networks without a last upsampling do."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Conv2d(3, 4, 4, stride=4)
        self.segmentation_head = nn.Conv2d(4, 2, 1)

    def forward(self, image):
        return self.segmentation_head(self.decoder(image))


@pytest.mark.parametrize("name", ["kd", "plc-kd:sc", "cwd", "skd", "dkd"])
@pytest.mark.parametrize("coarse", ["student", "teacher"])
def test_outputs_of_other_strides(name, coarse, tiny_net):
    torch.manual_seed(0)
    networks = {"student": tiny_net(1), "teacher": tiny_net(2), coarse: Coarse()}
    (stage,) = get_method(name).stages(networks["teacher"], networks["student"], input_shape=(3, 64, 64))
    image, target = torch.randn(2, 3, 64, 64), torch.randint(0, 2, (2, 64, 64))
    values = stage.loss(image, target)
    values["loss"].backward()
    assert all(torch.isfinite(value) for value in values.values())


@pytest.mark.parametrize("name", ["plc-kd", "coco", "emkd", "cirkd", "fsp+mgd"])
def test_methods_with_two_sizes_and_normalisations(name, tiny_net):
    """Each stage trains where the teacher sees twice as sharply as the student."""
    torch.manual_seed(0)
    teacher, student = (create(n, classes=3) for n in ("unet/resnet18", "unet/mobilenet_v2"))
    stages = get_method(name).stages(
        teacher,
        student,
        input_shape=(3, 64, 64),
        views=[View(ONE, OTHER)],
        student_view=View(factor=0.5),
    )
    for stage in stages:
        stage.network.train()
        stage.begin_epoch(1, 2)
        for _ in range(2):
            values = stage.loss(torch.randn(2, 3, 64, 64), torch.randint(0, 3, (2, 64, 64)))
        values["loss"].backward()
        assert torch.isfinite(values["loss"])
