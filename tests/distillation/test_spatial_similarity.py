from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_kdseg.distillation.losses.spatial_similarity import spatial_similarity, unit_pixels
from napari_kdseg.errors import ConfigurationError


def naive_similarity(feature, mixed):
    """M of one image [c, h, w] in float64: the cosine of every pair of pixels, by loops."""
    f = np.asarray(feature, dtype=np.float64)
    c, h, w = f.shape
    weight = [1.0] * c
    if mixed:
        highest = [f[j].max() for j in range(c)]
        total = sum(np.exp(a) for a in highest)
        weight = [np.exp(a) / total for a in highest]
    pixels = [[f[j, y, x] * weight[j] for j in range(c)] for y in range(h) for x in range(w)]
    length = [np.sqrt(sum(value**2 for value in pixel)) for pixel in pixels]
    return np.array(
        [
            [
                sum(a * b for a, b in zip(p, q, strict=True)) / (length[i] * length[j])
                for j, q in enumerate(pixels)
            ]
            for i, p in enumerate(pixels)
        ]
    )


def naive_loss(students, teachers, mixed):
    layers = [
        np.mean(
            [
                (naive_similarity(s, mixed) - naive_similarity(t, mixed)) ** 2
                for s, t in zip(student, teacher, strict=True)
            ]
        )
        for student, teacher in zip(students, teachers, strict=True)
    ]
    return float(np.mean(layers))


def feature(seed, *shape, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("c_student", "c_teacher", "h", "w"), [(3, 3, 4, 3), (2, 7, 3, 5), (1, 4, 1, 6)])
def test_equals_naive_loop(mixed, c_student, c_teacher, h, w):
    student, teacher = feature(1, 2, c_student, h, w), feature(2, 2, c_teacher, h, w)
    expected = naive_loss([student], [teacher], mixed)
    assert spatial_similarity(student, teacher, mixed=mixed).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("mixed", [False, True])
def test_several_layers_are_averaged(mixed):
    student = feature(3, 2, 3, 4, 4), feature(4, 2, 5, 2, 2)
    teacher = feature(5, 2, 6, 4, 4), feature(6, 2, 2, 2, 2)
    expected = naive_loss(student, teacher, mixed)
    assert spatial_similarity(student, teacher, mixed=mixed).item() == pytest.approx(expected, abs=1e-12)


def test_larger_feature_is_averaged_and_side_bounds_both():
    student, teacher = feature(7, 1, 3, 8, 4), feature(8, 1, 3, 4, 8)
    averaged = student.reshape(1, 3, 4, 2, 4).mean(3), teacher.reshape(1, 3, 4, 4, 2).mean(4)
    expected = naive_loss([averaged[0]], [averaged[1]], mixed=False)
    assert spatial_similarity(student, teacher).item() == pytest.approx(expected, abs=1e-12)
    quarter = [f.reshape(1, 3, 2, 2, 2, 2).mean((3, 5)) for f in averaged]
    expected = naive_loss([quarter[0]], [quarter[1]], mixed=False)
    assert spatial_similarity(student, teacher, side=2).item() == pytest.approx(expected, abs=1e-12)


def test_mixing_weighs_channels_by_the_softmax_of_their_maximum():
    pixels = unit_pixels(torch.tensor([[[[1.0, 1.0]], [[3.0, -2.0]]]]))
    weight = torch.tensor([1.0, 3.0]).softmax(0)
    expected = torch.tensor([[1.0, 1.0], [3.0, -2.0]]) * weight[:, None]
    torch.testing.assert_close(pixels[0], expected / expected.norm(dim=0))


@pytest.mark.parametrize("mixed", [False, True])
def test_zero_and_flat_where_both_agree(mixed):
    student = feature(9, 2, 3, 4, 3).requires_grad_()
    value = spatial_similarity(student, student, mixed=mixed)
    assert value.item() == 0
    assert not torch.autograd.grad(value, student)[0].any()


@pytest.mark.parametrize("mixed", [False, True])
def test_gradient_reaches_student_only(mixed):
    student, teacher = feature(10, 1, 3, 3, 2).requires_grad_(), feature(11, 1, 4, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: spatial_similarity(f, teacher, mixed=mixed), student)
    spatial_similarity(student, teacher, mixed=mixed).backward()
    assert student.grad.any()
    assert teacher.grad is None


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 3, 5, 3)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4, -1.0])
def test_degenerate_features_are_finite(mixed, dtype, shape, scale):
    student = (scale * feature(12, *shape).abs()).to(dtype).requires_grad_()
    value = spatial_similarity(
        student, feature(13, *shape).to(dtype), torch.full((1, 9, 9), 255), mixed=mixed
    )
    (gradient,) = torch.autograd.grad(value, student)
    assert value.dtype == torch.float32
    assert 0 <= value.item() <= 4
    assert torch.isfinite(gradient).all()


def test_the_same_under_autocast():
    student, teacher = feature(14, 2, 8, 6, 6).float(), feature(15, 2, 8, 6, 6).float()
    expected = spatial_similarity(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert spatial_similarity(student, teacher).item() == expected.item()


def test_refuses_other_numbers_of_layers():
    one = feature(16, 1, 2, 3, 3)
    with pytest.raises(ConfigurationError, match="2 layers of the student but 1 of the teacher"):
        spatial_similarity((one, one), one)
