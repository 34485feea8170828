from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from napari_kdseg.distillation.distiller import Given
from napari_kdseg.distillation.losses.fsp import fsp
from napari_kdseg.distillation.methods.fsp import FSP
from napari_kdseg.errors import ConfigurationError


def pooled(feature, height, width):
    """Mean over the cells of adaptive pooling, one cell at a time."""
    feature = feature.double().numpy()
    out = np.zeros((*feature.shape[:2], height, width))
    for i in range(height):
        for j in range(width):
            rows = slice(i * feature.shape[2] // height, -(-(i + 1) * feature.shape[2] // height))
            columns = slice(j * feature.shape[3] // width, -(-(j + 1) * feature.shape[3] // width))
            out[:, :, i, j] = feature[:, :, rows, columns].mean((2, 3))
    return out


def naive_matrix(first, second, target, n):
    """One image's FSP matrix, entry by entry; ``None`` where no pixel is labelled."""
    height, width = min(first.shape[2], second.shape[2]), min(first.shape[3], second.shape[3])
    first, second = pooled(first, height, width)[n], pooled(second, height, width)[n]
    matrix, pixels = np.zeros((len(first), len(second))), 0
    for i in range(height):
        for j in range(width):
            if target is not None:
                label = target[n, i * target.shape[1] // height, j * target.shape[2] // width]
                if label == 255:
                    continue
            pixels += 1
            for a in range(len(first)):
                for b in range(len(second)):
                    matrix[a, b] += first[a, i, j] * second[b, i, j]
    return matrix / pixels if pixels else None


def naive(student, teacher, target):
    values = []
    for n in range(len(student[0])):
        of_student, of_teacher = naive_matrix(*student, target, n), naive_matrix(*teacher, target, n)
        if of_student is not None and of_teacher is not None:
            values.append(((of_student - of_teacher) ** 2).mean())
    return np.mean(values)


SIZES = {
    "one size": [(4, 4), (4, 4), (4, 4), (4, 4)],
    "late smaller": [(7, 6), (3, 3), (8, 8), (4, 4)],
    "early smaller": [(3, 4), (6, 8), (3, 4), (5, 9)],
    "crossed": [(6, 3), (4, 5), (5, 5), (5, 5)],
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("labelled", [True, False])
def test_equals_naive_loop(sizes, labelled):
    torch.manual_seed(3)
    student = torch.randn(3, 2, *sizes[0]), torch.randn(3, 4, *sizes[1])
    teacher = torch.randn(3, 2, *sizes[2]), torch.randn(3, 4, *sizes[3])
    target = torch.randint(0, 3, (3, 12, 12))
    target[0, :5], target[1] = 255, 255
    target = target if labelled else None
    assert fsp(student, teacher, target).item() == pytest.approx(naive(student, teacher, target), rel=1e-4)


def test_does_not_depend_on_the_order_of_pixels():
    student = torch.randn(1, 2, 1, 12), torch.randn(1, 3, 1, 12)
    teacher = torch.randn(1, 2, 1, 12), torch.randn(1, 3, 1, 12)
    order = torch.randperm(12)
    shuffled = tuple(layer[..., order] for layer in student)
    torch.testing.assert_close(fsp(shuffled, teacher), fsp(student, teacher))


def test_teacher_of_twice_the_size_with_the_same_content_is_equal():
    student = torch.randn(2, 2, 4, 4), torch.randn(2, 3, 4, 4)
    teacher = tuple(F.interpolate(layer, scale_factor=2, mode="nearest") for layer in student)
    assert fsp(student, teacher).item() == pytest.approx(0, abs=1e-10)


def test_gradient_reaches_both_student_layers():
    student = tuple(torch.randn(1, 2, 4, 4, requires_grad=True) for _ in range(2))
    teacher = tuple(torch.randn(1, 2, 4, 4, requires_grad=True) for _ in range(2))
    fsp(student, teacher).backward()
    assert all(layer.grad.any() for layer in student)
    assert all(layer.grad is None for layer in teacher)


def test_refuses_other_channels_and_other_numbers_of_layers():
    layers = torch.zeros(1, 2, 3, 3), torch.zeros(1, 3, 3, 3)
    with pytest.raises(ConfigurationError, match=r"\(2, 3\).*\(2, 2\)"):
        fsp(layers, (layers[0], layers[0]))
    with pytest.raises(ConfigurationError, match="exactly two student layers"):
        fsp(layers[0], layers)
    with pytest.raises(ConfigurationError, match="exactly two teacher layers"):
        fsp(layers, (*layers, layers[0]))


def test_method_aligns_the_student_where_channels_differ():
    (term,) = FSP.build(FSP.settings(), Given(nn.Identity())).terms
    assert (term.student_taps, term.weight) == (("@shallow", "@deep"), 50.0)
    student = torch.randn(2, 2, 6, 6), torch.randn(2, 3, 6, 6)
    teacher = torch.randn(2, 4, 6, 6), torch.randn(2, 3, 6, 6)
    connector = term.connector([s.shape for s in student], [t.shape for t in teacher])
    aligned = connector(*student)
    value = term.loss(aligned, teacher, None, ignore_index=255)
    value.backward()
    assert value.item() == pytest.approx(naive([a.detach() for a in aligned], teacher, None), rel=1e-4)
    assert all(parameter.grad.any() for parameter in connector.parameters())
