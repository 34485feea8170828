"""Region affinity of EMKD against a loop written from eq. 6-8."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from napari_kdseg.distillation.losses.region_affinity import region_affinity
from napari_kdseg.errors import ConfigurationError


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def blocks(count, classes, size, seed=0, cell=2):
    """Random labels in blocks, so that regions survive on a coarser grid; a stripe is ignored."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    coarse = torch.randint(0, classes, (count, -(-height // cell), -(-width // cell)), generator=generator)
    target = coarse.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, :height, :width].clone()
    target[0, :, 0] = 255
    return target


def naive_masks(labels, c, height, width, how):
    mask = np.zeros((height, width))
    for i, j in np.ndindex(height, width):
        if how == "nearest":
            mask[i, j] = labels[i * labels.shape[0] // height, j * labels.shape[1] // width] == c
        else:
            rows = slice(i * labels.shape[0] // height, math.ceil((i + 1) * labels.shape[0] / height))
            columns = slice(j * labels.shape[1] // width, math.ceil((j + 1) * labels.shape[1] / width))
            mask[i, j] = (labels[rows, columns] == c).mean()
    return mask


def naive_contrasts(feature, labels, classes, how):
    """``V_ij`` of one image as a dict; only pairs of which both classes have a pixel."""
    feature = np.asarray(feature, dtype=np.float64)
    regions = {}
    for c in range(classes):
        mask = naive_masks(labels, c, *feature.shape[1:], how)
        if mask.sum() > 0:
            total = sum(feature[:, i, j] * mask[i, j] for i, j in np.ndindex(*mask.shape))
            regions[c] = total / mask.sum()
    return {
        (i, j): float(regions[i] @ regions[j] / (np.linalg.norm(regions[i]) * np.linalg.norm(regions[j])))
        for i, j in itertools.combinations(sorted(regions), 2)
    }


def naive_region_affinity(student, teacher, target, classes, reduce, p, how):
    values = []
    for n in range(len(student)):
        labels = np.asarray(target[n])
        v_s = naive_contrasts(student[n], labels, classes, how)
        v_t = naive_contrasts(teacher[n], labels, classes, how)
        pairs = sorted(set(v_s) & set(v_t))
        if reduce == "vector":
            values += [abs(v_s[pair] - v_t[pair]) ** p for pair in pairs]
        elif pairs:
            mean_s, mean_t = (sum(v[pair] for pair in pairs) / len(pairs) for v in (v_s, v_t))
            values.append(abs(mean_s - mean_t) ** p)
    return sum(values) / max(len(values), 1)


@pytest.mark.parametrize("how", ["nearest", "area"])
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("reduce", ["vector", "mean"])
@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize(
    ("of_student", "of_teacher"),
    [((2, 3, 8, 8), (2, 5, 8, 8)), ((3, 4, 4, 5), (3, 2, 8, 10)), ((1, 6, 3, 7), (1, 3, 2, 3))],
)
def test_equals_naive_loop(of_student, of_teacher, classes, reduce, p, how):
    student, teacher = random(*of_student), random(*of_teacher, seed=1)
    target = blocks(of_student[0], classes, (8, 10), seed=classes)
    value = region_affinity(student, teacher, target, reduce=reduce, p=p, masks=how)
    expected = naive_region_affinity(student, teacher, target, classes, reduce, p, how)
    assert expected > 0
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_equals_computation_by_hand():
    """Two pixels a class: prototypes (1, 0) and (1, 1) for the student, (1, 0) and (0, 2) for the teacher."""
    student = torch.tensor([[[[2.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 2.0]]]])
    teacher = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [2.0, 2.0]]]])
    target = torch.tensor([[[0, 0], [1, 1]]])
    by_hand = (math.sqrt(0.5) - 0) ** 2
    assert region_affinity(student, teacher, target).item() == pytest.approx(by_hand, rel=1e-6)


def test_layer_pairs_are_summed():
    student, teacher = (
        (random(2, 3, 8, 8), random(2, 4, 2, 2, seed=1)),
        (
            random(2, 5, 8, 8, seed=2),
            random(2, 2, 4, 4, seed=3),
        ),
    )
    target = blocks(2, 3, (8, 8), cell=4)
    expected = sum(
        naive_region_affinity(s, t, target, 3, "vector", 2, "nearest")
        for s, t in zip(student, teacher, strict=True)
    )
    assert region_affinity(student, teacher, target).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("p", [1, 2])
def test_mean_equals_vector_for_two_classes(p):
    student, teacher, target = random(3, 4, 6, 6), random(3, 4, 6, 6, seed=1), blocks(3, 2, (6, 6))
    vector = region_affinity(student, teacher, target, p=p)
    torch.testing.assert_close(region_affinity(student, teacher, target, p=p, reduce="mean"), vector)


def test_absent_classes_and_names_of_classes_do_not_matter():
    student, teacher, target = random(2, 4, 6, 6), random(2, 4, 6, 6, seed=1), blocks(2, 3, (6, 6))
    renamed = torch.tensor([5, 0, 9])[target.clamp(max=2)]
    renamed[target == 255] = 255
    torch.testing.assert_close(
        region_affinity(student, teacher, renamed), region_affinity(student, teacher, target)
    )


def test_an_image_of_one_class_counts_for_nothing():
    student, teacher, target = random(2, 4, 6, 6), random(2, 4, 6, 6, seed=1), blocks(2, 3, (6, 6))
    with_background = [torch.cat([f, random(1, 4, 6, 6, seed=7)]) for f in (student, teacher)]
    more = torch.cat([target, torch.zeros(1, 6, 6, dtype=torch.long)])
    for reduce in ("vector", "mean"):
        torch.testing.assert_close(
            region_affinity(*with_background, more, reduce=reduce),
            region_affinity(student, teacher, target, reduce=reduce),
        )


def test_area_masks_keep_a_region_that_nearest_drops():
    target = torch.zeros(1, 16, 16, dtype=torch.long)
    target[0, 5, 5] = 1  # no multiple of 8: no pixel of the 2 x 2 grid is taken from here
    student, teacher = random(1, 4, 2, 2), random(1, 4, 2, 2, seed=1)
    assert region_affinity(student, teacher, target) == 0
    assert region_affinity(student, teacher, target, masks="area") > 0


def test_gradient():
    def loss(feature):
        return region_affinity(feature, teacher, target)

    teacher, target = random(2, 3, 4, 4, seed=1).requires_grad_(), blocks(2, 3, (4, 4), cell=1)
    student = random(2, 2, 4, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(loss, student)
    loss(student).backward()
    assert teacher.grad is None
    assert student.grad.any()
    assert not student.grad[0, :, :, 0].any()  # ignored


@pytest.mark.parametrize("reduce", ["vector", "mean"])
@pytest.mark.parametrize("p", [1, 2])
def test_zero_where_both_agree(reduce, p):
    feature, target = random(2, 3, 6, 6).requires_grad_(), blocks(2, 4, (6, 6))
    value = region_affinity(feature, feature, target, reduce=reduce, p=p)
    (gradient,) = torch.autograd.grad(value, feature)
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert gradient.abs().max() < 1e-5


@pytest.mark.parametrize("masks", ["nearest", "area"])
@pytest.mark.parametrize("reduce", ["vector", "mean"])
@pytest.mark.parametrize("label", [0, 3, 255])
def test_one_class_or_all_ignored_is_zero_with_graph(label, reduce, masks):
    student = random(2, 3, 4, 4).requires_grad_()
    target = torch.full((2, 9, 7), label)
    value = region_affinity(student, random(2, 5, 3, 3), target, reduce=reduce, masks=masks)
    value.backward()
    assert value == 0
    assert not student.grad.any()


@pytest.mark.parametrize("masks", ["nearest", "area"])
@pytest.mark.parametrize(
    "student",
    [torch.zeros(1, 3, 5, 7), torch.full((1, 3, 5, 7), 4.0), 1e-20 * torch.ones(1, 3, 5, 7)],
    ids=["zero", "constant", "tiny"],
)
def test_finite_on_degenerate_features_and_a_class_of_one_pixel(student, masks):
    student.requires_grad_()
    target = torch.zeros(1, 5, 7, dtype=torch.long)
    target[0, 2, 3] = 1
    for teacher in (random(1, 4, 5, 7), torch.zeros(1, 4, 5, 7), torch.ones(1, 4, 3, 2)):
        value = region_affinity(student, teacher, target, masks=masks)
        (gradient,) = torch.autograd.grad(value, student)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast(dtype):
    student, teacher = (1e4 * random(2, 3, 8, 8).clamp(-6, 6)).to(dtype), random(2, 3, 8, 8, seed=1).to(dtype)
    target = blocks(2, 3, (8, 8))
    student.requires_grad_()
    value = region_affinity(student, teacher, target)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(student.grad).all()
    with torch.autocast("cpu", dtype=dtype):
        cast = region_affinity(student, teacher, target)
    assert cast.item() == value.item()


def test_refuses():
    one, target = torch.zeros(1, 2, 3, 3), torch.zeros(1, 3, 3, dtype=torch.long)
    with pytest.raises(ConfigurationError, match="labels"):
        region_affinity(one, one)
    for options in ({"p": 3}, {"reduce": "sum"}, {"masks": "bilinear"}):
        with pytest.raises(ConfigurationError, match="norm 1 or 2"):
            region_affinity(one, one, target, **options)
    with pytest.raises(ConfigurationError, match=r"2 student layers but 1 teacher layers"):
        region_affinity((one, one), one, target)
