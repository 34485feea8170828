from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from napari_kdseg.distillation.losses.knowledge_distillation import kd
from napari_kdseg.distillation.losses.pixel_wise import pixel_wise

SHAPES = [(1, 2, 3, 4), (2, 3, 5, 3), (3, 7, 2, 2)]


def softmax(z):
    e = [math.exp(value) for value in z]
    return [value / sum(e) for value in e]


def naive(student, teacher, target):
    """Pixel by pixel in float64: mean of -sum_c p_T log p_S."""
    s, t = np.asarray(student.detach(), dtype=np.float64), np.asarray(teacher, dtype=np.float64)
    values = []
    for n, i, j in np.ndindex(s.shape[0], *s.shape[2:]):
        if target is None or target[n, i, j] != 255:
            p, q = softmax(t[n, :, i, j]), softmax(s[n, :, i, j])
            values.append(-sum(a * math.log(b) for a, b in zip(p, q, strict=True)))
    return sum(values) / len(values)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("labelled", [True, False])
def test_equals_naive_loop(case, shape, labelled):
    student, teacher, target = case(shape)
    target = target if labelled else None
    assert pixel_wise(student, teacher, target).item() == pytest.approx(
        naive(student, teacher, target), rel=1e-5
    )


def test_is_kd_at_temperature_one_plus_the_teachers_entropy(case):
    student, teacher, _ = case((2, 3, 5, 3))
    entropy = -(teacher.softmax(1) * teacher.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(pixel_wise(student, teacher), kd(student, teacher, temperature=1) + entropy)


def test_minimum_is_flat_where_both_agree(case):
    _, teacher, target = case((2, 3, 5, 3))
    student = teacher.clone().requires_grad_()
    value = pixel_wise(student, teacher, target)
    (gradient,) = torch.autograd.grad(value, student)
    assert gradient.abs().max() < 1e-7
    for seed in range(5):
        other = teacher + 0.5 * torch.randn(teacher.shape, generator=torch.Generator().manual_seed(seed))
        assert pixel_wise(other, teacher, target) > value


def test_resizes_a_smaller_teacher():
    torch.manual_seed(0)
    student, teacher = torch.randn(1, 2, 8, 6), torch.randn(1, 2, 4, 3)
    resized = F.interpolate(teacher, size=(8, 6), mode="bilinear", align_corners=False)
    assert pixel_wise(student, teacher).item() == pytest.approx(naive(student, resized, None), rel=1e-5)


# Value and norm of the gradient in SKD's code (github.com/irfanICMLL/structure_knowledge_distillation,
# CriterionPixelWise in utils/criterion.py, commit ce208e1), in float64.
SKD_CODE = {
    (65, 2): (1.812204183459127, 0.014820019385915225),
    (65, 7): (4.696987262459731, 0.01634504269052101),
    (96, 7): (4.700459200541395, 0.011114887455278877),
}


@pytest.mark.parametrize(("side", "classes"), SKD_CODE)
def test_sum_over_the_pixels_of_one_image_is_that_of_skds_code(side, classes):
    generator = torch.Generator().manual_seed(1)
    student = torch.randn(2, classes, side, side, generator=generator).requires_grad_()
    teacher = 3 * torch.randn(2, classes, side, side, generator=generator)
    value = pixel_wise(student, teacher, reduction="image")
    (gradient,) = torch.autograd.grad(value, student)
    assert (value.item(), gradient.norm().item()) == pytest.approx(SKD_CODE[side, classes], rel=1e-5)
    assert pixel_wise(student, teacher).item() == pytest.approx(value.item() / 2)


def test_logits_are_averaged_over_squares(case):
    student, teacher, _ = case((2, 3, 6, 4))
    squares = [z.unflatten(2, (3, 2)).unflatten(4, (2, 2)).mean((3, 5)) for z in (student, teacher)]
    ours = pixel_wise(student, teacher, stride=2)
    torch.testing.assert_close(ours, pixel_wise(*squares))
    assert ours != pixel_wise(student, teacher)
