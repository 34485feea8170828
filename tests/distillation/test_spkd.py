from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from napari_kdseg.distillation.distiller import Given
from napari_kdseg.distillation.losses.spkd import spkd
from napari_kdseg.distillation.methods.spkd import SPKD


def naive_similarity(feature, target):
    """Rows of length one, entry by entry in float64."""
    feature = feature.double().numpy()
    count, _, height, width = feature.shape
    gram = np.zeros((count, count))
    for a in range(count):
        for b in range(count):
            for i in range(height):
                for j in range(width):
                    y, x = (
                        (0, 0)
                        if target is None
                        else (
                            i * target.shape[1] // height,
                            j * target.shape[2] // width,
                        )
                    )
                    if target is None or (target[a, y, x] != 255 and target[b, y, x] != 255):
                        gram[a, b] += feature[a, :, i, j] @ feature[b, :, i, j]
    lengths = np.sqrt((gram**2).sum(axis=1, keepdims=True))
    return gram / np.where(lengths > 0, lengths, 1)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("other", [(3, 4, 4), (7, 2, 3)])
@pytest.mark.parametrize("labelled", [True, False])
def test_equals_naive_loop(count, other, labelled):
    student, teacher = torch.randn(count, 3, 4, 4), torch.randn(count, *other)
    target = torch.randint(0, 3, (count, 12, 12))
    target[0, :5], target[-1, :, 6:] = 255, 255
    target = target if labelled else None
    difference = naive_similarity(student, target) - naive_similarity(teacher, target)
    expected = (difference**2).sum() / count**2
    assert spkd(student, teacher, target).item() == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_one_image_teaches_nothing_and_the_method_says_so():
    student = torch.randn(1, 3, 4, 4, requires_grad=True)
    value = spkd(student, torch.randn(1, 5, 4, 4))
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert student.grad.abs().max() < 1e-6
    (sentence,) = SPKD.caution(2, 1)
    assert "one image a batch" in sentence
    assert SPKD.caution(2, 2) == []
    assert SPKD.needs_batch


def test_orthogonal_against_equal_images():
    student = torch.eye(2).view(2, 2, 1, 1)  # Gram matrix: identity
    teacher = torch.ones(2, 2, 1, 1)  # Gram matrix: all 1 / sqrt(2)
    expected = (2 * (1 - 0.5**0.5) ** 2 + 2 * 0.5) / 4
    assert spkd(student, teacher).item() == pytest.approx(expected, rel=1e-6)


def test_scale_and_channel_order_do_not_matter():
    feature = torch.randn(4, 6, 3, 3)
    assert spkd(3 * feature[:, torch.randperm(6)], feature).item() == pytest.approx(0, abs=1e-10)


def test_method_is_one_term_of_the_last_feature():
    (term,) = SPKD.build(SPKD.settings(), Given(nn.Identity())).terms
    student, teacher = torch.randn(3, 2, 4, 4), torch.randn(3, 5, 2, 2)
    difference = naive_similarity(student, None) - naive_similarity(teacher, None)
    assert (term.student_taps, term.weight) == (("@feature",), 3000.0)
    value = term.loss(student, teacher, torch.zeros(3, 8, 8, dtype=torch.long), ignore_index=255)
    assert value.item() == pytest.approx((difference**2).sum() / 9, rel=1e-4)
