from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from napari_kdseg.distillation.losses.knowledge_distillation import kd, soft_label_kl
from napari_kdseg.errors import ConfigurationError


def naive_kl(student_logits, probabilities, target, tau):
    """Pixel by pixel in float64: tau^2 mean KL(P^(1/tau) / sum || softmax(z / tau))."""
    z, p = np.asarray(student_logits, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    total, pixels = 0.0, 0
    for n in range(z.shape[0]):
        for i in range(z.shape[2]):
            for j in range(z.shape[3]):
                if target is not None and target[n, i, j] == 255:
                    continue
                tempered = np.maximum(p[n, :, i, j], 1e-7) ** (1 / tau)
                tempered /= tempered.sum()
                q = np.exp(z[n, :, i, j] / tau)
                q /= q.sum()
                total += sum(a * math.log(a / b) for a, b in zip(tempered, q, strict=True))
                pixels += 1
    return tau**2 * total / pixels


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(5)
    student = 2 * torch.randn(2, 4, 5, 3, generator=generator)
    teacher = 2 * torch.randn(2, 4, 5, 3, generator=generator)
    target = torch.randint(0, 4, (2, 5, 3), generator=generator)
    target[0, 0] = 255
    return student, teacher, target


@pytest.mark.parametrize("tau", [1.0, 2.5, 4.0])
@pytest.mark.parametrize("labelled", [True, False])
def test_both_equal_naive_loop(case, tau, labelled):
    student, teacher, target = case
    target = target if labelled else None
    expected = naive_kl(student, teacher.softmax(1), target, tau)
    soft = soft_label_kl(student, teacher.softmax(1), target, temperature=tau)
    assert soft.item() == pytest.approx(expected, rel=1e-5)
    assert kd(student, teacher, target, temperature=tau).item() == pytest.approx(expected, rel=1e-5)


def test_hard_labels_equal_cross_entropy(case):
    student, _, _ = case
    target = torch.randint(0, 4, (2, 5, 3))
    hard = F.one_hot(target, 4).movedim(-1, 1).float()
    torch.testing.assert_close(
        soft_label_kl(student, hard), F.cross_entropy(student, target), rtol=1e-4, atol=1e-5
    )


def test_zero_and_flat_where_both_agree(case):
    student, _, target = case
    student.requires_grad_()
    for value in (
        kd(student, student.detach(), target, temperature=3),
        soft_label_kl(student, student.detach().softmax(1), target, temperature=3),
    ):
        (gradient,) = torch.autograd.grad(value, student)
        assert value.item() == pytest.approx(0, abs=1e-6)
        assert gradient.abs().max() < 1e-6


def test_gradient_reaches_student_only(case):
    student, teacher, target = (tensor.clone() for tensor in case)
    student.requires_grad_()
    teacher.requires_grad_()
    (kd(student, teacher, target) + soft_label_kl(student, teacher.softmax(1), target)).backward()
    assert student.grad.any()
    assert teacher.grad is None
    assert not student.grad[0, :, 0].any()  # ignored row


def test_two_classes_equal_binary_divergence():
    student, teacher = torch.randn(1, 2, 3, 3), torch.randn(1, 2, 3, 3)
    p, q = torch.sigmoid(teacher[:, 1] - teacher[:, 0]), torch.sigmoid(student[:, 1] - student[:, 0])
    by_hand = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    torch.testing.assert_close(kd(student, teacher), by_hand)


def test_nothing_labelled_is_zero_with_graph():
    student = torch.randn(1, 2, 3, 3, requires_grad=True)
    target = torch.full((1, 3, 3), 255)
    value = kd(student, torch.randn(1, 2, 3, 3), target) + soft_label_kl(
        student, torch.rand(1, 2, 3, 3), target
    )
    value.backward()
    assert value.item() == 0
    assert not student.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_extreme_logits_are_finite(dtype):
    student = (1e4 * torch.randn(2, 3, 4, 4)).to(dtype).requires_grad_()
    teacher = (1e4 * torch.randn(2, 3, 4, 4)).to(dtype)
    value = kd(student, teacher) + soft_label_kl(student, teacher.softmax(1), temperature=2)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


def test_kd_resizes_a_smaller_teacher():
    student, teacher = torch.randn(1, 2, 8, 6), torch.randn(1, 2, 4, 3)
    resized = F.interpolate(teacher, size=(8, 6), mode="bilinear", align_corners=False)
    torch.testing.assert_close(kd(student, teacher), kd(student, resized))


def test_refuses_other_classes_and_bad_temperature():
    with pytest.raises(ConfigurationError, match=r"\(1, 2, 3, 3\).*\(1, 4, 3, 3\)"):
        kd(torch.zeros(1, 2, 3, 3), torch.zeros(1, 4, 3, 3))
    with pytest.raises(ConfigurationError, match="temperature"):
        soft_label_kl(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3), temperature=0)
