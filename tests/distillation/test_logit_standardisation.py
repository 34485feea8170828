from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from napari_kdseg.distillation.distiller import Given
from napari_kdseg.distillation.losses.logit_standardisation import logit_standardisation
from napari_kdseg.distillation.methods.logit_standardisation import LOGIT_STANDARDISATION
from napari_kdseg.errors import ConfigurationError


def standardised_softmax(z, tau):
    mean = sum(z) / len(z)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in z) / (len(z) - 1))
    e = [math.exp((value - mean) / (1e-7 + deviation) / tau) for value in z]
    return [value / sum(e) for value in e]


def naive(student, teacher, target, tau):
    """Pixel by pixel in float64; the z-score is over the classes of the pixel."""
    s, t = np.asarray(student.detach(), dtype=np.float64), np.asarray(teacher, dtype=np.float64)
    values = []
    for n, i, j in np.ndindex(s.shape[0], *s.shape[2:]):
        if target is None or target[n, i, j] != 255:
            p = standardised_softmax(t[n, :, i, j], tau)
            q = standardised_softmax(s[n, :, i, j], tau)
            values.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    return tau**2 * sum(values) / len(values)


@pytest.mark.parametrize("shape", [(1, 2, 3, 4), (2, 3, 5, 3), (3, 7, 2, 2)])
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_equals_naive_loop(case, shape, labelled, tau):
    student, teacher, target = case(shape)
    target = target if labelled else None
    value = logit_standardisation(student, teacher, target, temperature=tau)
    assert value.item() == pytest.approx(naive(student, teacher, target, tau), rel=2e-5, abs=1e-6)


def test_zero_and_flat_where_both_agree_up_to_scale_and_shift(case):
    _, teacher, target = case((2, 4, 5, 3))
    student = (3 * teacher - 5).requires_grad_()
    value = logit_standardisation(student, teacher, target)
    (gradient,) = torch.autograd.grad(value, student)
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert gradient.abs().max() < 1e-6


def test_two_classes_leave_no_gradient(case):
    student, teacher, _ = case((2, 2, 5, 4))
    student.requires_grad_()
    value = logit_standardisation(student, teacher)
    (gradient,) = torch.autograd.grad(value, student)
    # every pixel says +-0.7071 / 2, so that the value only counts disagreements
    high = 1 / (1 + math.exp(-2 * math.sqrt(0.5) / 2))
    once = high * math.log(high / (1 - high)) + (1 - high) * math.log((1 - high) / high)
    disagree = (student.argmax(1) != teacher.argmax(1)).float().mean().item()
    assert value.item() == pytest.approx(4 * once * disagree, rel=1e-5)
    assert value.item() > 0
    assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize("constant", [0.0, 0.3, -7.7])
def test_constant_logits_get_a_gradient_of_ordinary_size(case, constant):
    _, teacher, _ = case((2, 3, 5, 3))
    student = torch.full_like(teacher, constant).requires_grad_()
    value = logit_standardisation(student, teacher)
    value.backward()
    assert 1e-3 < student.grad.abs().max() < 1
    with torch.no_grad():
        assert (
            logit_standardisation(student - 10 * student.grad, teacher) < value
        )  # and it points the right way
    same = logit_standardisation(student, student.detach())
    assert same.item() == pytest.approx(0, abs=1e-6)


def test_resizes_a_smaller_teacher_and_refuses_what_does_not_fit():
    torch.manual_seed(0)
    student, teacher = torch.randn(1, 3, 8, 6), torch.randn(1, 3, 4, 3)
    resized = F.interpolate(teacher, size=(8, 6), mode="bilinear", align_corners=False)
    assert logit_standardisation(student, teacher).item() == pytest.approx(
        naive(student, resized, None, 2.0), rel=1e-4
    )
    with pytest.raises(ConfigurationError, match="temperature"):
        logit_standardisation(student, teacher, temperature=0)
    with pytest.raises(ConfigurationError, match="two classes"):
        logit_standardisation(student[:, :1], student[:, :1])


def test_method_has_the_papers_constants_and_says_what_two_classes_mean():
    (term,) = LOGIT_STANDARDISATION.build(LOGIT_STANDARDISATION.settings(), Given(nn.Identity())).terms
    assert (term.weight, term.loss.keywords) == (9.0, {"temperature": 2.0})
    (sentence,) = LOGIT_STANDARDISATION.caution(2, 8)
    assert "teaches nothing" in sentence
    assert LOGIT_STANDARDISATION.caution(3, 1) == []
