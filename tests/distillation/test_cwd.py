from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from napari_kdseg.distillation.declarations import LOGITS
from napari_kdseg.distillation.distiller import Given
from napari_kdseg.distillation.losses.cwd import cwd
from napari_kdseg.distillation.methods.cwd import CWD
from napari_kdseg.errors import ConfigurationError


def naive(student, teacher, target, tau):
    """Image by image, channel by channel, position by position in float64."""
    s, t = np.asarray(student.detach(), dtype=np.float64), np.asarray(teacher, dtype=np.float64)
    total, images = 0.0, 0
    for n in range(s.shape[0]):
        inside = [
            (i, j)
            for i in range(s.shape[2])
            for j in range(s.shape[3])
            if target is None or target[n, i, j] != 255
        ]
        if not inside:
            continue
        images += 1
        for c in range(s.shape[1]):
            mass_s = sum(math.exp(s[n, c, i, j] / tau) for i, j in inside)
            mass_t = sum(math.exp(t[n, c, i, j] / tau) for i, j in inside)
            for i, j in inside:
                p, q = math.exp(t[n, c, i, j] / tau) / mass_t, math.exp(s[n, c, i, j] / tau) / mass_s
                total += p * math.log(p / q)
    return tau**2 * total / (images * s.shape[1])


@pytest.mark.parametrize("shape", [(1, 2, 3, 4), (2, 5, 4, 3), (3, 7, 2, 2), (1, 1, 3, 4)])
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_equals_naive_loop(case, shape, labelled, tau):
    student, teacher, target = case(shape)
    target = target if labelled else None
    value = cwd(student, teacher, target, temperature=tau)
    assert value.item() == pytest.approx(naive(student, teacher, target, tau), rel=2e-5)


def test_an_image_without_labels_is_not_counted(case):
    student, teacher, target = case((3, 2, 4, 3))
    target[1] = 255
    expected = naive(student, teacher, target, 4.0)
    assert cwd(student, teacher, target).item() == pytest.approx(expected, rel=1e-5)
    kept = [0, 2]
    torch.testing.assert_close(cwd(student, teacher, target), cwd(student[kept], teacher[kept], target[kept]))
    student.requires_grad_()
    with torch.autograd.set_detect_anomaly(
        True
    ):  # no step of the way back is NaN, even if a mask would hide it
        cwd(student, teacher, target).backward()
    assert not student.grad[1].any()


def test_labels_come_to_the_feature_grid_by_nearest_neighbour(case):
    student, teacher, _ = case((1, 3, 2, 3))
    coarse = torch.tensor([[[0, 255, 1], [255, 0, 0]]])
    fine = coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert cwd(student, teacher, fine).item() == pytest.approx(naive(student, teacher, coarse, 4.0), rel=1e-5)


def test_zero_and_flat_where_both_agree_up_to_a_constant_in_each_channel(case):
    _, teacher, target = case((2, 3, 5, 3))
    student = (teacher + torch.tensor([1.0, -2.0, 0.5])[:, None, None]).requires_grad_()
    value = cwd(student, teacher, target)
    (gradient,) = torch.autograd.grad(value, student)
    assert value.item() == pytest.approx(0, abs=1e-5)
    assert gradient.abs().max() < 1e-6


def test_constant_student_learns_a_teacher_that_is_not(case):
    student = torch.zeros(1, 2, 3, 3, requires_grad=True)
    _, teacher, _ = case((1, 2, 3, 3))
    value = cwd(student, teacher)
    value.backward()
    assert value.item() == pytest.approx(naive(student, teacher, None, 4.0), rel=1e-5)
    assert student.grad.any()


def test_resizes_a_smaller_teacher_and_refuses_what_does_not_fit():
    torch.manual_seed(0)
    student, teacher = torch.randn(1, 2, 8, 6), torch.randn(1, 2, 4, 3)
    resized = F.interpolate(teacher, size=(8, 6), mode="bilinear", align_corners=False)
    assert cwd(student, teacher).item() == pytest.approx(naive(student, resized, None, 4.0), rel=1e-4)
    with pytest.raises(ConfigurationError, match="temperature"):
        cwd(student, teacher, temperature=0)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("", [("cwd", LOGITS, 3.0)]),
        ("features", [("cwd_features", "@feature", 50.0)]),
        ("both", [("cwd", LOGITS, 3.0), ("cwd_features", "@feature", 50.0)]),
    ],
)
def test_method_builds_the_terms_of_each_variant(variant, expected):
    method = CWD.preset(variant) if variant else CWD
    terms = method.build(method.settings(), Given(nn.Identity())).terms
    assert [(term.name, term.student_taps[0], term.weight) for term in terms] == expected
    assert all(term.loss.keywords == {"temperature": 4.0} for term in terms)
    assert all((term.connector is None) == (term.student_taps == (LOGITS,)) for term in terms)


def test_method_compares_chosen_layers_in_pairs_through_a_convolution_that_trains():
    torch.manual_seed(0)
    chosen = {"student_layers": ("a", "b"), "teacher_layers": ("c", "d")}
    (term,) = CWD.build(CWD.preset("features").settings(chosen), Given(nn.Identity())).terms
    assert (term.student_taps, term.teacher_taps) == (("a", "b"), ("c", "d"))
    student = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 2, 2)
    teacher = torch.randn(2, 6, 4, 4), torch.randn(2, 5, 2, 2)
    connector = term.connector([f.shape for f in student], [f.shape for f in teacher])
    matched = connector(*student)
    value = term.loss(matched, teacher, None, ignore_index=255)
    assert [f.shape for f in matched] == [f.shape for f in teacher]
    expected = sum(naive(s, t, None, 4.0) for s, t in zip(matched, teacher, strict=True))
    assert value.item() == pytest.approx(expected, rel=1e-5)
    value.backward()
    (weight,) = connector.parameters()
    assert weight.shape == (6, 3, 1, 1)
    assert weight.grad.any()
