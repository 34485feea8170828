from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from napari_kdseg.distillation.losses.cross_layer_correlation import correlation, cross_layer_correlation
from napari_kdseg.errors import ConfigurationError


def literal_similarity(feature, mixed):
    """Eq. 1 and 2 of one image [c, h, w], pixel pair by pixel pair, as a hw x hw matrix."""
    pixels = np.asarray(feature, dtype=np.float64).reshape(len(feature), -1).T
    if mixed:
        a = pixels.max(axis=0)
        pixels = pixels * (np.exp(a) / np.exp(a).sum())
    count = len(pixels)
    similarity = np.zeros((count, count))
    for p in range(count):
        for q in range(count):
            lengths = np.sqrt(sum(pixels[p] ** 2)) * np.sqrt(sum(pixels[q] ** 2))
            similarity[p, q] = sum(pixels[p] * pixels[q]) / lengths
    return similarity


def literal_correlation(shallow, deep, mixed=True):
    """Eq. 3 of one image, with the vectors of (hw)^2 entries."""
    first, second = literal_similarity(shallow, mixed).ravel(), literal_similarity(deep, mixed).ravel()
    return first @ second / np.sqrt(first @ first) / np.sqrt(second @ second)


def literal_loss(student, teacher, mixed=True):
    """Eq. 4 with n pairs, and the mean over images."""
    pairs, images = len(student) // 2, len(student[0])
    total = 0.0
    for i in range(pairs):
        for n in range(images):
            of_teacher = literal_correlation(teacher[i][n], teacher[pairs + i][n], mixed)
            of_student = literal_correlation(student[i][n], student[pairs + i][n], mixed)
            total += (of_teacher - of_student) ** 2
    return total / pairs / images


def features(seed, *shapes, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return tuple(2 * torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)


@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize(
    ("shallow", "deep"),
    [
        ((2, 3, 4, 5), (2, 3, 4, 5)),
        ((1, 1, 3, 3), (1, 6, 3, 3)),
        ((3, 12, 2, 3), (3, 5, 2, 3)),
        ((1, 4, 1, 7), (1, 2, 1, 7)),
    ],
)
def test_closed_form_equals_literal_matrices(shallow, deep, mixed):
    first, second = features(1, shallow, deep)
    expected = [literal_correlation(a, b, mixed) for a, b in zip(first, second, strict=True)]
    assert correlation(first, second, mixed).tolist() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("pairs", [1, 2])
def test_loss_equals_literal_loss(pairs):
    student = features(2, *[(2, 3 + i, 3, 4) for i in range(2 * pairs)])
    teacher = features(3, *[(2, 6 - i, 3, 4) for i in range(2 * pairs)])  # other channels than the student
    value = cross_layer_correlation(student, teacher)
    assert value.item() == pytest.approx(literal_loss(student, teacher), abs=1e-10)


def test_student_and_teacher_may_have_other_sizes():
    student, teacher = features(4, *[(2, 3, 3, 4)] * 2), features(5, *[(2, 3, 5, 2)] * 2)
    expected = literal_loss(student, teacher)
    assert cross_layer_correlation(student, teacher).item() == pytest.approx(expected, abs=1e-10)


def test_larger_layer_of_a_pair_is_averaged():
    large, small = features(6, (2, 3, 8, 6), (2, 4, 4, 3))
    averaged = large.reshape(2, 3, 4, 2, 3, 2).mean(dim=(3, 5))
    expected = [literal_correlation(a, b) for a, b in zip(averaged, small, strict=True)]
    assert correlation(large, small).tolist() == pytest.approx(expected, abs=1e-10)
    assert correlation(small, large).tolist() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("seed", range(20))
def test_correlation_lies_between_zero_and_one(seed):
    generator = torch.Generator().manual_seed(seed)
    c1, c2, h, w = torch.randint(1, 9, (4,), generator=generator).tolist()
    first, second = features(seed, (4, c1, h, w), (4, c2, h, w))
    first = first * 10.0 ** float(torch.randint(-3, 3, (), generator=generator))
    value = correlation(first, second)
    assert (value >= 0).all()
    assert (value <= 1 + 1e-12).all()
    assert correlation(first, first).tolist() == pytest.approx([1.0] * 4)


def test_order_of_channels_and_lengths_of_mixed_pixels_do_not_count():
    first, second = features(7, (2, 6, 4, 3), (2, 5, 4, 3))
    expected = correlation(first, second)
    torch.testing.assert_close(correlation(first[:, torch.randperm(6)], second), expected)
    torch.testing.assert_close(correlation(first, second[:, torch.randperm(5)]), expected)
    mixed = [f * f.amax((2, 3), keepdim=True).softmax(1) for f in (first, second)]
    lengths = 0.1 + torch.rand(2, 1, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(correlation(mixed[0] * lengths, mixed[1], mixed=False), expected)


def test_negative_features_are_no_trouble():
    """Eq. 2 as printed takes the root of a negative sum here."""
    student = tuple(-f.abs().float().requires_grad_() for f in features(8, *[(2, 4, 3, 3)] * 2))
    teacher = tuple(-f.abs().float() for f in features(9, *[(2, 4, 3, 3)] * 2))
    value = cross_layer_correlation(student, teacher)
    assert value.item() == pytest.approx(literal_loss([f.detach() for f in student], teacher), abs=1e-6)
    assert all(torch.isfinite(gradient).all() for gradient in torch.autograd.grad(value, student))


def test_zero_and_flat_where_both_agree():
    student = tuple(f.requires_grad_() for f in features(10, *[(2, 4, 3, 5)] * 2))
    value = cross_layer_correlation(student, student)
    assert value.item() == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(value, student))


def test_gradient():
    student, teacher = features(11, (2, 3, 3, 2), (2, 4, 3, 2)), features(12, (2, 5, 3, 2), (2, 2, 3, 2))
    student, teacher = ([f.requires_grad_() for f in layers] for layers in (student, teacher))
    assert torch.autograd.gradcheck(
        lambda *layers: cross_layer_correlation(layers, tuple(teacher)), tuple(student)
    )
    cross_layer_correlation(tuple(student), tuple(teacher)).backward()
    assert all(f.grad.any() for f in student)
    assert all(f.grad is None for f in teacher)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (7, 1)])
@pytest.mark.parametrize("fill", ["zero", "constant", "dead pixels", "large"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_degenerate_features_are_finite(size, fill, dtype):
    def make(seed):
        (feature,) = features(seed, (1, 4, *size), dtype=torch.float32)
        if fill == "dead pixels":
            feature[..., 0] = 0.0
        scale = {"zero": 0.0, "large": 1e4}.get(fill, 1.0)
        feature = torch.ones_like(feature) if fill == "constant" else scale * feature
        return feature.to(dtype).requires_grad_()

    student, teacher = (make(1), make(2)), (make(3), make(4))
    target = torch.full((1, *size), 255)
    value = cross_layer_correlation(student, teacher, target, ignore_index=255)
    gradients = torch.autograd.grad(value, student)
    assert value.dtype == torch.float32
    assert 0 <= value.item() <= 1
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_pixel_without_direction_gets_no_gradient():
    """The cosine's derivative has no limit at 0; a dead pixel must not outweigh all others."""
    student = features(13, *[(1, 4, 4, 4)] * 2, dtype=torch.float32)
    for feature in student:
        feature[..., 0, 0] = 0.0
        feature.requires_grad_()
    value = cross_layer_correlation(student, features(14, *[(1, 4, 4, 4)] * 2))
    for gradient in torch.autograd.grad(value, student):
        assert not gradient[..., 0, 0].any()
        assert 0 < gradient.abs().max() < 1


def test_the_same_under_autocast():
    student, teacher = (features(seed, *[(2, 8, 6, 6)] * 2, dtype=torch.float32) for seed in (15, 16))
    expected = cross_layer_correlation(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert cross_layer_correlation(student, teacher).item() == expected.item()


def test_closed_form_needs_no_large_matrix():
    """One map of the literal form at 64 x 64 takes 64 MiB; all that is allocated forward and backward is less."""
    student = tuple(f.requires_grad_() for f in features(17, *[(1, 4, 64, 64)] * 2, dtype=torch.float32))
    teacher = features(18, *[(1, 4, 64, 64)] * 2, dtype=torch.float32)
    with torch.profiler.profile(profile_memory=True) as profile:
        cross_layer_correlation(student, teacher).backward()
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in profile.events())
    assert 2**18 < allocated < 2**24


def test_loss_falls_as_the_student_follows():
    student = [f.requires_grad_() for f in features(19, *[(2, 6, 6, 6)] * 2, dtype=torch.float32)]
    teacher = features(20, (2, 3, 6, 6), dtype=torch.float32) * 2  # phi = 1
    optimiser = torch.optim.Adam(student, lr=0.05)
    values = []
    for _ in range(30):
        optimiser.zero_grad()
        value = cross_layer_correlation(tuple(student), teacher)
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert values[-1] < 0.5 * values[0]


def test_refuses_layers_that_make_no_pairs():
    (one,) = features(21, (1, 2, 3, 3))
    with pytest.raises(ConfigurationError, match=r"pairs of layers.*3 layers"):
        cross_layer_correlation((one,) * 3, (one,) * 3)
    with pytest.raises(ConfigurationError, match="4 layers of the student but 2 of the teacher"):
        cross_layer_correlation((one,) * 4, (one,) * 2)
    with pytest.raises(ConfigurationError, match="same batch"):
        cross_layer_correlation((one,) * 2, (F.pad(one, (0,) * 6 + (0, 1)),) * 2)
