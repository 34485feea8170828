from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from napari_kdseg.distillation.losses.local_affinity import first_order, zero_order
from napari_kdseg.distillation.methods.local_affinity import LOCAL
from napari_kdseg.errors import ConfigurationError

torch.set_num_threads(1)
BOTH = pytest.mark.parametrize("loss", [zero_order, first_order])


def case(shape, seed=0):
    """Random logits of student and teacher, and a target with ignored pixels."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(shape, generator=generator) for _ in range(2))
    target = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.3] = 255
    target[0, 0, 0], target[0, -1, -1] = 255, 0
    return student, teacher, target


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
def test_equals_naive_loop(loss, shape, labelled):
    student, teacher, target = case(shape)
    target = target if labelled else None
    expected = naive(loss, student, teacher, target)
    assert loss(student, teacher, target).item() == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_a_pixel_whose_neighbours_are_all_ignored_does_not_count():
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
def test_zero_and_flat_where_both_agree(loss):
    _, teacher, target = case((2, 4, 5, 3))
    student = teacher.clone().requires_grad_()
    value = loss(student, teacher, target)
    (gradient,) = torch.autograd.grad(value, student)
    assert value.item() == 0
    assert not gradient.any()


@BOTH
def test_gradient_is_right_and_reaches_the_student_only(loss):
    student, teacher, target = case((2, 3, 3, 3))
    student, teacher = student.double().requires_grad_(), teacher.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s: loss(s, teacher.detach(), target), student, eps=3e-3, atol=5e-4, rtol=1e-2
    )
    loss(student, teacher, target).backward()
    assert teacher.grad is None
    assert not student.grad[0, :, 0, 0].any()  # ignored
    assert student.grad[0, :, -1, -1].all()


@BOTH
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("size", [(1, 1), (5, 7)])
@pytest.mark.parametrize("fill", [0, 1, 255])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_finite_on_degenerate_input(loss, classes, size, fill, dtype):
    torch.manual_seed(0)
    target = torch.full((1, *size), fill)
    for scale in (0.0, 1.0, 1e4):
        student = (scale * torch.randn(1, classes, *size)).to(dtype).requires_grad_()
        value = loss(student, (scale * torch.randn(1, classes, *size)).to(dtype), target)
        value.backward()
        assert value.dtype == torch.float32
        assert torch.isfinite(value)
        assert torch.isfinite(student.grad).all()
        if fill == 255 or scale == 0 or (loss is first_order and size == (1, 1)):
            assert value.item() == 0


@BOTH
def test_resizes_a_smaller_teacher_and_refuses_other_classes(loss):
    torch.manual_seed(0)
    student, teacher = torch.randn(1, 3, 8, 6), torch.randn(1, 3, 4, 3)
    resized = F.interpolate(teacher, size=(8, 6), mode="bilinear", align_corners=False)
    assert loss(student, teacher).item() == pytest.approx(naive(loss, student, resized, None), rel=1e-5)
    with pytest.raises(ConfigurationError, match=r"\(1, 3, 8, 6\).*\(1, 4, 8, 6\)"):
        loss(student, torch.zeros(1, 4, 8, 6))


@pytest.mark.parametrize(
    ("variant", "losses"),
    [("", [zero_order, first_order]), ("zero-order", [zero_order]), ("first-order", [first_order])],
)
def test_method_builds_the_terms_of_each_variant(variant, losses):
    method = LOCAL.preset(variant) if variant else LOCAL
    terms = method.build(method.settings()).terms
    assert [term.loss for term in terms] == losses
    assert [term.weight for term in terms] == [1.0] * len(losses)
