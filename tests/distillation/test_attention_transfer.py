from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from napari_kdseg.distillation.distiller import Given
from napari_kdseg.distillation.losses.attention_transfer import attention_transfer
from napari_kdseg.distillation.methods.attention_transfer import AT
from napari_kdseg.errors import ConfigurationError


def naive(student, teacher, target, exponent, reduction):
    """Image by image and pixel by pixel in float64: distance of the two maps of length one."""
    count, _, height, width = student.shape
    total = 0.0
    for n in range(count):
        maps = []
        for feature in (student[n].double().numpy(), teacher[n].double().numpy()):
            attention = np.zeros((height, width))
            for i in range(height):
                for j in range(width):
                    if target is None or target[n, i, j] != 255:
                        attention[i, j] = sum(abs(f) ** exponent for f in feature[:, i, j]) / len(feature)
            length = np.sqrt((attention**2).sum())
            maps.append(attention / length if length else attention)
        squares = (maps[0] - maps[1]) ** 2
        total += squares.sum() if reduction == "sum" else squares.mean()
    return total / count


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.5])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("channels", [(3, 3), (2, 5)])
@pytest.mark.parametrize("labelled", [True, False])
def test_equals_naive_loop(exponent, reduction, channels, labelled):
    student, teacher = torch.randn(3, channels[0], 4, 5), torch.randn(3, channels[1], 4, 5)
    target = torch.randint(0, 3, (3, 4, 5))
    target[0, 1:3], target[2] = 255, 255
    target = target if labelled else None
    value = attention_transfer(student, teacher, target, exponent=exponent, reduction=reduction)
    assert value.item() == pytest.approx(naive(student, teacher, target, exponent, reduction), rel=1e-5)


def test_the_teachers_map_is_resized_not_its_feature():
    student, teacher = torch.randn(2, 3, 8, 6), torch.randn(2, 4, 3, 5)
    energy = teacher.square().mean(dim=1, keepdim=True)
    resized = F.interpolate(energy, size=(8, 6), mode="bilinear", align_corners=False)
    expected = naive(student, resized.sqrt(), None, 2.0, "sum")
    assert attention_transfer(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_scale_and_sign_do_not_matter():
    feature = torch.randn(2, 3, 4, 4)
    assert attention_transfer(-5 * feature, feature).item() == pytest.approx(0, abs=1e-10)


def test_sum_does_not_depend_on_the_resolution():
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    fine = [tensor.repeat_interleave(4, 2).repeat_interleave(4, 3) for tensor in (student, teacher)]
    coarse = attention_transfer(student, teacher).item()
    assert attention_transfer(*fine).item() == pytest.approx(coarse, rel=1e-5)
    assert attention_transfer(*fine, reduction="mean").item() == pytest.approx(coarse / 256, rel=1e-5)


def test_maps_without_overlap_are_two_apart():
    student, teacher = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    student[0, 0, 0, 0], teacher[0, 0, 1, 1] = 3.0, 7.0
    assert attention_transfer(student, teacher).item() == pytest.approx(2.0)


def test_refuses_a_small_exponent():
    with pytest.raises(ConfigurationError, match="at least 1"):
        attention_transfer(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), exponent=0.5)


def test_method_sums_three_depths():
    (term,) = AT.build(AT.settings(), Given(nn.Identity())).terms
    assert term.student_taps == term.teacher_taps == ("@shallow", "@middle", "@feature")
    student = tuple(torch.randn(2, 2, size, size) for size in (8, 4, 8))
    teacher = tuple(torch.randn(2, 5, size, size) for size in (8, 4, 8))
    expected = sum(naive(s, t, None, 2.0, "sum") for s, t in zip(student, teacher, strict=True))
    assert term.loss(student, teacher, None, ignore_index=255).item() == pytest.approx(expected, rel=1e-5)


def test_cirkd_variant_is_the_mean_over_one_feature():
    variant = AT.preset("cirkd")
    (term,) = variant.build(variant.settings(), Given(nn.Identity())).terms
    student, teacher = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    assert (term.student_taps, term.weight) == (("@feature",), 10000.0)
    assert term.loss(student, teacher).item() == pytest.approx(
        naive(student, teacher, None, 2, "mean"), rel=1e-5
    )
