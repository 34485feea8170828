from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from napari_kdseg.distillation.distiller import Given
from napari_kdseg.distillation.losses.dist import dist_inter, dist_intra
from napari_kdseg.distillation.methods.dist import DIST
from napari_kdseg.errors import ConfigurationError

BOTH = pytest.mark.parametrize("loss", [dist_inter, dist_intra])


def pearson(x, y):
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / math.sqrt(sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y))


def naive(loss, student, teacher, target, tau):
    """Both relations in float64, from lists of the labelled pixels' probabilities."""
    pixels = []
    for z in (student, teacher):
        z = np.asarray(z.detach(), dtype=np.float64) / tau
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        pixels.append(
            [
                p[n, :, i, j].tolist()
                for n, i, j in np.ndindex(p.shape[0], *p.shape[2:])
                if target is None or target[n, i, j] != 255
            ]
        )
    s, t = pixels
    if loss is dist_intra:
        s, t = list(zip(*s, strict=True)), list(zip(*t, strict=True))
    return tau**2 * sum(1 - pearson(a, b) for a, b in zip(s, t, strict=True)) / len(s)


@BOTH
@pytest.mark.parametrize("shape", [(1, 2, 3, 4), (2, 3, 5, 3), (3, 7, 2, 2)])
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_equals_naive_loop(case, loss, shape, labelled, tau):
    student, teacher, target = case(shape)
    target = target if labelled else None
    value = loss(student, teacher, target, temperature=tau)
    expected = naive(loss, student, teacher, target, tau)
    assert value.item() == pytest.approx(expected, rel=1e-5)


@BOTH
@pytest.mark.parametrize("classes", [2, 4])
def test_zero_and_flat_where_both_agree(case, loss, classes):
    _, teacher, target = case((2, classes, 5, 3))
    student = teacher.clone().requires_grad_()
    value = loss(student, teacher, target)
    (gradient,) = torch.autograd.grad(value, student)
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert gradient.abs().max() < 1e-6


@BOTH
def test_probabilities_that_agree_up_to_scale_and_shift_cost_nothing(case, loss):
    _, teacher, _ = case((2, 4, 5, 3))
    student = (0.5 * teacher.softmax(1) + 0.125).log()
    assert loss(student, teacher).item() == pytest.approx(0, abs=1e-6)


def test_two_classes_leave_no_gradient_between_classes(case):
    """The value is twice the share of pixels on which the two disagree."""
    student, teacher, _ = case((2, 2, 5, 4))
    student.requires_grad_()
    value = dist_inter(student, teacher)
    (gradient,) = torch.autograd.grad(value, student)
    disagree = (student.argmax(1) != teacher.argmax(1)).float().mean()
    assert 0 < disagree < 1
    torch.testing.assert_close(value, 2 * disagree)
    assert gradient.abs().max() < 1e-6
    (gradient,) = torch.autograd.grad(dist_intra(student, teacher), student)
    assert gradient.abs().max() > 1e-3


@BOTH
@pytest.mark.parametrize("constant", [0.0, 0.3, -7.7])
def test_constant_teacher_teaches_nothing_and_constant_student_gets_a_gradient_of_ordinary_size(
    case, loss, constant
):
    varied, _, _ = case((2, 3, 5, 3))
    # constant over classes for one relation, over pixels for the other
    level = torch.full((2, 3, 5, 3), constant)
    student = varied.clone().requires_grad_()
    value = loss(student, level)
    value.backward()
    assert value.item() == 0
    assert not student.grad.any()
    student = level.clone().requires_grad_()
    value = loss(student, varied)
    value.backward()
    assert value.item() == pytest.approx(1, abs=1e-5)
    assert 1e-4 < student.grad.abs().max() < 1
    with torch.no_grad():
        assert loss(student - 10 * student.grad, varied) < 0.5  # and it points the right way


def test_absent_class_does_not_break_the_intra_class_relation(case):
    """Probabilities of 1e-20, of which squares are hardly numbers, are right; lower ones harmless."""
    student, teacher, target = case((2, 4, 5, 3))
    absent = student[:, 0].clone(), teacher[:, 0].clone()
    for level in [*range(-20, -80, -3), -200]:
        student[:, 3], teacher[:, 3] = absent[0] + level, absent[1] + level
        leaf = student.clone().requires_grad_()
        value = dist_intra(leaf, teacher, target)
        value.backward()
        if level > -45:
            assert value.item() == pytest.approx(naive(dist_intra, student, teacher, target, 1.0), rel=1e-4)
        assert 0 <= value.item() <= 2
        assert 1e-4 < leaf.grad.abs().max() < 1


@BOTH
def test_resizes_a_smaller_teacher_and_refuses_what_does_not_fit(loss):
    torch.manual_seed(0)
    student, teacher = torch.randn(1, 3, 8, 6), torch.randn(1, 3, 4, 3)
    resized = F.interpolate(teacher, size=(8, 6), mode="bilinear", align_corners=False)
    assert loss(student, teacher).item() == pytest.approx(naive(loss, student, resized, None, 1.0), rel=1e-5)
    with pytest.raises(ConfigurationError, match="temperature"):
        loss(student, teacher, temperature=0)


@pytest.mark.parametrize(
    ("variant", "names"),
    [("", ["dist_inter", "dist_intra"]), ("inter", ["dist_inter"]), ("intra", ["dist_intra"])],
)
def test_method_builds_two_terms_of_weight_one(variant, names):
    method = DIST.preset(variant) if variant else DIST
    terms = method.build(method.settings(), Given(nn.Identity())).terms
    assert [term.name for term in terms] == names
    assert [term.loss.func.__name__ for term in terms] == names
    assert all(term.weight == 1.0 and term.loss.keywords == {"temperature": 1.0} for term in terms)


def test_method_says_what_two_classes_mean():
    (sentence,) = DIST.caution(2, 8)
    assert "inter-class term" in sentence
    assert DIST.caution(3, 1) == []
