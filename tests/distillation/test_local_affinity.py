from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from napari_kdseg.distillation.distiller import Given
from napari_kdseg.distillation.losses.local_affinity import first_order, zero_order
from napari_kdseg.distillation.methods.local_affinity import LOCAL

BOTH = pytest.mark.parametrize("loss", [zero_order, first_order])


def softmax(z):
    e = [math.exp(value) for value in z]
    return [value / sum(e) for value in e]


def naive(loss, student, teacher, target):
    """Pixel by pixel, and neighbour by neighbour, in float64."""
    s, t = np.asarray(student.detach(), dtype=np.float64), np.asarray(teacher, dtype=np.float64)
    images, _, height, width = s.shape
    inside = {
        (n, i, j) for n, i, j in np.ndindex(images, height, width) if target is None or target[n, i, j] != 255
    }
    values = []
    for n, i, j in sorted(inside):
        if loss is zero_order:
            pairs = zip(softmax(s[n, :, i, j]), softmax(t[n, :, i, j]), strict=True)
            values.append(sum((a - b) ** 2 for a, b in pairs))
            continue
        near = [(n, k, m) for k in range(i - 1, i + 2) for m in range(j - 1, j + 2) if (k, m) != (i, j)]
        near = [position for position in near if position in inside]
        if near:
            c_s, c_t = (
                sum(math.dist(z[n, :, i, j], z[n, :, k, m]) for _, k, m in near) / len(near) for z in (s, t)
            )
            values.append((c_s - c_t) ** 2)
    return sum(values) / len(values) if values else 0.0


@BOTH
@pytest.mark.parametrize("shape", [(1, 2, 3, 4), (2, 3, 5, 3), (3, 7, 2, 2), (1, 3, 1, 6)])
@pytest.mark.parametrize("labelled", [True, False])
def test_equals_naive_loop(case, loss, shape, labelled):
    student, teacher, target = case(shape)
    target = target if labelled else None
    expected = naive(loss, student, teacher, target)
    assert loss(student, teacher, target).item() == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_a_pixel_whose_neighbours_are_all_ignored_does_not_count(case):
    student, teacher, _ = case((1, 3, 3, 6))
    target = torch.full((1, 3, 6), 255)
    target[0, 1, 1] = 0  # alone
    alone = first_order(student, teacher, target)
    target[0, :, 4:] = 1
    assert alone.item() == 0
    expected = naive(first_order, student, teacher, target)
    assert first_order(student, teacher, target).item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(
        first_order(student, teacher, target), first_order(student[..., 4:], teacher[..., 4:])
    )


@BOTH
def test_zero_and_flat_where_both_agree(case, loss):
    _, teacher, target = case((2, 4, 5, 3))
    student = teacher.clone().requires_grad_()
    value = loss(student, teacher, target)
    (gradient,) = torch.autograd.grad(value, student)
    assert value.item() == 0
    assert not gradient.any()


@BOTH
def test_resizes_a_smaller_teacher(loss):
    torch.manual_seed(0)
    student, teacher = torch.randn(1, 3, 8, 6), torch.randn(1, 3, 4, 3)
    resized = F.interpolate(teacher, size=(8, 6), mode="bilinear", align_corners=False)
    assert loss(student, teacher).item() == pytest.approx(naive(loss, student, resized, None), rel=1e-5)


@pytest.mark.parametrize(
    ("variant", "losses"),
    [("", [zero_order, first_order]), ("zero-order", [zero_order]), ("first-order", [first_order])],
)
def test_method_builds_the_terms_of_each_variant(variant, losses):
    method = LOCAL.preset(variant) if variant else LOCAL
    terms = method.build(method.settings(), Given(nn.Identity())).terms
    assert [term.loss for term in terms] == losses
    assert [term.weight for term in terms] == [1.0] * len(losses)
