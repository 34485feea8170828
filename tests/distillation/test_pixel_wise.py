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
