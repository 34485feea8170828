from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from napari_kdseg.distillation.distiller import Given
from napari_kdseg.distillation.losses.dkd import dkd
from napari_kdseg.distillation.losses.knowledge_distillation import kd
from napari_kdseg.distillation.methods.dkd import DKD
from napari_kdseg.errors import ConfigurationError


def divergence(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def naive(student, teacher, target, alpha, beta, tau):
    """Pixel by pixel in float64, from the probabilities themselves."""
    s, t = np.asarray(student.detach(), dtype=np.float64), np.asarray(teacher, dtype=np.float64)
    values = []
    for n, i, j in np.ndindex(s.shape[0], *s.shape[2:]):
        y = int(target[n, i, j])
        if y == 255:
            continue
        both = []
        for z in (t[n, :, i, j], s[n, :, i, j]):
            e = np.exp(z / tau)
            p = e / e.sum()
            rest = [p[c] for c in range(len(p)) if c != y]
            both.append(([p[y], sum(rest)], [value / sum(rest) for value in rest]))
        (b_t, others_t), (b_s, others_s) = both
        values.append(alpha * divergence(b_t, b_s) + beta * divergence(others_t, others_s))
    return tau**2 * sum(values) / len(values)


@pytest.mark.parametrize("shape", [(1, 2, 3, 4), (2, 3, 5, 3), (3, 7, 2, 2)])
@pytest.mark.parametrize(("alpha", "beta", "tau"), [(1.0, 8.0, 4.0), (1.0, 0.0, 1.0), (0.0, 2.0, 2.0)])
def test_equals_naive_loop(case, shape, alpha, beta, tau):
    student, teacher, target = case(shape)
    value = dkd(student, teacher, target, alpha=alpha, beta=beta, temperature=tau)
    expected = naive(student, teacher, target, alpha, beta, tau)
    assert value.item() == pytest.approx(expected, rel=2e-5, abs=1e-6)


def test_defaults_are_the_papers(case):
    student, teacher, target = case((2, 4, 3, 3))
    assert dkd(student, teacher, target).item() == pytest.approx(
        naive(student, teacher, target, 1.0, 8.0, 4.0), rel=1e-5
    )


@pytest.mark.parametrize("classes", [3, 4, 9])
def test_kd_is_tckd_plus_nckd_weighted_by_the_teachers_doubt(case, classes):
    """At temperature 1: KL = TCKD + mean((1 - p_T[y]) NCKD of the pixel)."""
    student, teacher, target = case((1, classes, 4, 4), seed=classes)
    target = torch.where(target == 255, 0, target)
    one = {"temperature": 1.0}
    weighted = 0.0
    for i, j in np.ndindex(4, 4):
        pixel = (..., slice(i, i + 1), slice(j, j + 1))
        others = dkd(student[pixel], teacher[pixel], target[pixel], alpha=0, beta=1, **one)
        weighted += (1 - teacher.softmax(1)[0, target[0, i, j], i, j]) * others / 16
    true = dkd(student, teacher, target, alpha=1, beta=0, **one)
    torch.testing.assert_close(kd(student, teacher, **one), true + weighted)


@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_two_classes_are_plain_kd(case, tau):
    student, teacher, target = case((2, 2, 4, 3))
    assert dkd(student, teacher, target, alpha=0, beta=8, temperature=tau).item() == 0
    torch.testing.assert_close(
        dkd(student, teacher, target, temperature=tau), kd(student, teacher, target, temperature=tau)
    )


@pytest.mark.parametrize("shape", [(2, 2, 5, 3), (2, 4, 5, 3)])
def test_zero_and_flat_where_both_agree(case, shape):
    _, teacher, target = case(shape)
    student = teacher.clone().requires_grad_()
    value = dkd(student, teacher, target)
    (gradient,) = torch.autograd.grad(value, student)
    assert value.item() == pytest.approx(0, abs=1e-5)
    assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize("level", [0.0, 4096.0, -4096.0])
def test_true_class_is_set_apart_exactly_however_large_the_logits(case, level):
    student, teacher, target = case((1, 3, 1, 1))
    target[:] = 0
    student, teacher = student + level, teacher + level
    student[:, 0], teacher[:, 0] = student[:, 0] + 5.0, teacher[:, 0] - 5.0
    others = dkd(student, teacher, target, alpha=0, beta=1, temperature=1)
    torch.testing.assert_close(others, kd(student[:, 1:], teacher[:, 1:]))
    both = dkd(student, teacher, target, temperature=1)
    expected = naive(student - level, teacher - level, target, 1.0, 8.0, 1.0)
    assert both.item() == pytest.approx(expected, rel=1e-3)
    student[:, 0], teacher[:, 0] = level + 5000.0, level - 5000.0
    others = dkd(student, teacher, target, alpha=0, beta=1, temperature=1)
    torch.testing.assert_close(others, kd(student[:, 1:], teacher[:, 1:]))


def test_resizes_a_smaller_teacher_and_refuses_what_does_not_fit():
    torch.manual_seed(0)
    student, teacher, target = torch.randn(1, 3, 8, 6), torch.randn(1, 3, 4, 3), torch.ones(1, 8, 6).long()
    resized = F.interpolate(teacher, size=(8, 6), mode="bilinear", align_corners=False)
    expected = naive(student, resized, target, 1.0, 8.0, 4.0)
    assert dkd(student, teacher, target).item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ConfigurationError, match="ground truth"):
        dkd(student, teacher)
    with pytest.raises(ConfigurationError, match="temperature"):
        dkd(student, teacher, target, temperature=0)
    with pytest.raises(ConfigurationError, match="two classes"):
        dkd(student[:, :1], student[:, :1], target)


def test_method_warms_up_over_twenty_epochs():
    (term,) = DKD.build(DKD.settings(), Given(nn.Identity())).terms
    assert term.loss.keywords == {"alpha": 1.0, "beta": 8.0, "temperature": 4.0}
    factors = [term.schedule(epoch) for epoch in range(30)]
    assert factors[:20] == pytest.approx([(epoch + 1) / 20 for epoch in range(20)])
    assert factors[19:] == [1.0] * 11
    (at_once,) = DKD.build(DKD.settings({"warm_up_epochs": 0}), Given(nn.Identity())).terms
    assert at_once.schedule(0) == 1.0


def test_method_needs_labels_and_says_what_two_classes_mean():
    assert DKD.needs_labels
    (sentence,) = DKD.caution(2, 8)
    assert "same as plain knowledge distillation" in sentence
    assert DKD.caution(3, 1) == []
