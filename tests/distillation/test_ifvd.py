from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from napari_kdseg.distillation.distiller import Given
from napari_kdseg.distillation.losses.ifvd import ifvd
from napari_kdseg.distillation.methods.ifvd import IFVD
from napari_kdseg.errors import ConfigurationError


def naive_similarity(feature, target, n):
    """Similarity of each pixel of image n to its class's mean, and its label, pixel by pixel in float64."""
    feature = feature[n].double().numpy()
    height, width = feature.shape[1:]
    labels = np.zeros((height, width), dtype=int)
    by_class = {}
    for i in range(height):
        for j in range(width):
            labels[i, j] = target[n, i * target.shape[1] // height, j * target.shape[2] // width]
            by_class.setdefault(labels[i, j], []).append(feature[:, i, j])
    similarity = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            if labels[i, j] != 255:
                f, prototype = feature[:, i, j], np.mean(by_class[labels[i, j]], axis=0)
                similarity[i, j] = f @ prototype / (np.linalg.norm(f) * np.linalg.norm(prototype))
    return similarity, labels


def bilinear(values, counts, y, x):
    """Value at ``(y, x)`` of the pixels that count, weighted by nearness; ``None`` where none does."""
    total = weights = 0.0
    y, x = max(y, 0.0), max(x, 0.0)
    for i in (int(y), int(y) + 1):
        for j in (int(x), int(x) + 1):
            weight = (1 - abs(y - i)) * (1 - abs(x - j))
            row, column = min(i, values.shape[0] - 1), min(j, values.shape[1] - 1)
            if weight > 0 and counts[row, column]:
                total += weight * values[row, column]
                weights += weight
    return total / weights if weights else None


def naive(student, teacher, target):
    squares = []
    for n in range(len(student)):
        of_student, labels = naive_similarity(student, target, n)
        of_teacher, teacher_labels = naive_similarity(teacher, target, n)
        height, width = labels.shape
        for i in range(height):
            for j in range(width):
                y = (i + 0.5) * of_teacher.shape[0] / height - 0.5
                x = (j + 0.5) * of_teacher.shape[1] / width - 0.5
                aim = bilinear(of_teacher, teacher_labels != 255, y, x)
                if labels[i, j] != 255 and aim is not None:
                    squares.append((of_student[i, j] - aim) ** 2)
    return np.mean(squares)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("other", [(3, 5, 6), (5, 5, 6), (4, 3, 4), (2, 9, 11)])
@pytest.mark.parametrize("ignored", [True, False])
def test_equals_naive_loop(classes, other, ignored):
    torch.manual_seed(classes)
    student, teacher = torch.randn(2, 3, 5, 6), torch.randn(2, *other)
    target = torch.randint(0, classes, (2, 10, 12))
    target[1][target[1] == 1] = 0  # absent from one image
    if ignored:
        target[0, :4], target[1, torch.rand(10, 12) < 0.3] = 255, 255
    assert ifvd(student, teacher, target).item() == pytest.approx(naive(student, teacher, target), rel=1e-4)


def test_prototypes_are_of_each_image_and_class():
    feature = torch.zeros(2, 2, 1, 2)
    feature[0, :, 0, 0], feature[0, :, 0, 1] = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    feature[1] = torch.tensor([1.0, 0.0]).view(2, 1, 1)
    teacher = torch.ones(2, 2, 1, 2)  # similarity 1 everywhere
    apart = torch.tensor([[[0, 1]], [[0, 0]]])  # each pixel its own class: similarity 1
    together = torch.tensor([[[1, 1]], [[0, 0]]])  # prototype between both: similarity 1 / sqrt(2)
    assert ifvd(feature, teacher, apart).item() == pytest.approx(0, abs=1e-12)
    assert ifvd(feature, teacher, together).item() == pytest.approx((1 - 0.5**0.5) ** 2 / 2, rel=1e-5)


def test_an_absent_class_and_a_class_of_one_pixel_add_nothing():
    student, teacher = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    target = torch.zeros(1, 4, 4, dtype=torch.long)
    target[:, 2:] = 1
    renamed = torch.where(target == 1, 9, 0)  # classes 1 to 8 absent
    torch.testing.assert_close(ifvd(student, teacher, renamed), ifvd(student, teacher, target))
    target = torch.full((1, 4, 4), 255)
    target[0, 1, 1] = 1  # is its own prototype, in both networks
    assert ifvd(student, teacher, target).item() == pytest.approx(0, abs=1e-12)


def test_needs_the_ground_truth():
    with pytest.raises(ConfigurationError, match="ground truth"):
        ifvd(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    assert IFVD.needs_labels


def test_another_ignore_label():
    student, teacher = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    target = torch.randint(0, 2, (1, 4, 4))
    target[0, 0] = 255
    expected = ifvd(student, teacher, target).item()
    value = ifvd(student, teacher, torch.where(target == 255, -1, target), ignore_index=-1)
    assert value.item() == pytest.approx(expected, rel=1e-6)


def test_method_is_one_term_of_the_last_feature():
    (term,) = IFVD.build(IFVD.settings(), Given(nn.Identity())).terms
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 4, 4)
    target = torch.randint(0, 2, (2, 8, 8))
    assert (term.student_taps, term.weight) == (("@feature",), 20.0)
    value = term.loss(student, teacher, target, ignore_index=255)
    assert value.item() == pytest.approx(naive(student, teacher, target), rel=1e-4)
