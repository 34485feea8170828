from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from napari_kdseg.distillation.distiller import Given
from napari_kdseg.distillation.losses.pair_wise import pair_wise
from napari_kdseg.distillation.methods.pair_wise import PA
from napari_kdseg.errors import ConfigurationError


def adaptive_cells(side, count):
    return [range(i * side // count, -(-(i + 1) * side // count)) for i in range(count)]


def window_cells(side, window):
    return [range(start, min(start + window, side)) for start in range(0, side, window)]


def naive_nodes(feature, target, n, height, width):
    """The nodes' vectors of image n, cell by cell: maximum of each channel over labelled pixels, or ``None``."""
    feature = feature[n].double().numpy()
    rows, columns = feature.shape[1:]
    nodes = []
    for cell_y in height:
        for cell_x in width:
            pixels = [
                feature[:, y, x]
                for y in cell_y
                for x in cell_x
                if target is None
                or target[n, y * target.shape[1] // rows, x * target.shape[2] // columns] != 255
            ]
            nodes.append(np.max(pixels, axis=0) if pixels else None)
    return nodes


def cosine(u, v):
    lengths = np.linalg.norm(u) * np.linalg.norm(v)
    return u @ v / lengths if lengths else 0.0


def naive(student, teacher, target, nodes=None, windows=None):
    """``windows``: height and width of the windows, for two maps of one size."""
    if windows:
        cells = [[window_cells(side, w) for side, w in zip(student.shape[2:], windows, strict=True)]] * 2
    else:
        counts = [min(nodes, a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True)]
        cells = [
            [adaptive_cells(side, count) for side, count in zip(f.shape[2:], counts, strict=True)]
            for f in (student, teacher)
        ]
    images = []
    for n in range(len(student)):
        of_student = naive_nodes(student, target, n, *cells[0])
        of_teacher = naive_nodes(teacher, target, n, *cells[1])
        used = [r for r in range(len(of_student)) if of_student[r] is not None and of_teacher[r] is not None]
        squares = [
            (cosine(of_student[i], of_student[j]) - cosine(of_teacher[i], of_teacher[j])) ** 2
            for i in used
            for j in used
        ]
        if squares:
            images.append(np.mean(squares))
    return np.mean(images)


@pytest.mark.parametrize("nodes", [1, 2, 3, 8])
@pytest.mark.parametrize("other", [(3, 5, 6), (6, 7, 4)])
@pytest.mark.parametrize("labelled", [True, False])
def test_equals_naive_loop(nodes, other, labelled):
    torch.manual_seed(nodes)
    student, teacher = torch.randn(3, 3, 5, 6), torch.randn(3, *other)
    target = torch.randint(0, 3, (3, 10, 12))
    target[0, :5], target[1], target[2, torch.rand(10, 12) < 0.5] = 255, 255, 255
    target = target if labelled else None
    value = pair_wise(student, teacher, target, nodes=nodes)
    assert value.item() == pytest.approx(naive(student, teacher, target, nodes), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(
    ("window", "size", "windows"),
    [
        (0.5, (6, 8), (3, 4)),
        (0.5, (5, 7), (2, 3)),  # 2, 2, 1 and 3, 3, 1: what is left over makes cells of its own
        (0.9, (6, 1), (5, 1)),
        (0.1, (6, 7), (1, 1)),  # never less than a pixel
        (2, (6, 7), (2, 2)),
        (2.0, (1, 1), (1, 1)),
        (9, (5, 7), (5, 7)),
    ],
)
def test_windows_equal_naive_loop(window, size, windows, labelled):
    torch.manual_seed(1)
    student, teacher = torch.randn(3, 3, *size), torch.randn(3, 5, *size)
    target = torch.randint(0, 3, (3, *size))
    target[0, : size[0] // 2], target[1] = 255, 255
    target[2, torch.rand(size) < 0.5] = 255
    target = target if labelled else None
    value = pair_wise(student, teacher, target, window=window)
    assert value.item() == pytest.approx(naive(student, teacher, target, windows=windows), rel=1e-4, abs=1e-9)


def test_windows_are_those_of_the_smaller_map():
    student, teacher = torch.randn(2, 3, 10, 14), torch.randn(2, 4, 5, 7)
    by_window = pair_wise(student, teacher, window=2)  # 2 x 2 windows of 5 x 7 make 3 x 4 nodes
    larger = torch.nn.functional.adaptive_max_pool2d(student, (3, 4))
    smaller = torch.nn.functional.max_pool2d(teacher, 2, ceil_mode=True)
    torch.testing.assert_close(by_window, pair_wise(larger, smaller))
    torch.testing.assert_close(pair_wise(teacher, student, window=2), pair_wise(smaller, larger))


def published_recipe(side=65):
    """Two images; student with 16 channels, then teacher with 32, of one generator."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(2, c, side, side, generator=generator).relu() for c in (16, 32))


def test_variants_give_what_the_published_code_gives():
    """Values of SKD's ``sim_dis_compute`` and of CIRKD's ``CriterionStructuralKD`` for the same two features."""

    def value(method, student, teacher):
        (term,) = method.build(method.settings(), Given(nn.Identity())).terms
        return term.loss(student, teacher, None, ignore_index=255).item()

    # rounding: similarities near 1 carry 6e-8, and these differ by 0.04 and 0.1, so their squares are good to 1e-5
    assert value(PA.preset("authors"), *published_recipe()) == pytest.approx(2.356584876e-3, rel=1e-5)
    assert value(PA.preset("cirkd"), *published_recipe()) == pytest.approx(1.334917662e-2, rel=1e-5)
    # the default has CIRKD's weight, and nodes that make its windows on a map of 64 pixels
    even = list(published_recipe(64))
    assert value(PA, *even) == pytest.approx(value(PA.preset("cirkd"), *even), rel=1e-6)


def test_every_pixel_a_node_is_the_paper_s_equation():
    student, teacher = torch.randn(2, 4, 3, 5), torch.randn(2, 6, 3, 5)

    def similarities(feature):
        unit = F.normalize(feature.flatten(2), dim=1)
        return torch.einsum("ncp,ncq->npq", unit, unit)

    by_hand = (similarities(student) - similarities(teacher)).square().sum() / 15**2 / 2
    torch.testing.assert_close(pair_wise(student, teacher, nodes=8), by_hand)


def test_opposite_similarities_by_hand():
    student = torch.tensor([1.0, -1.0]).view(1, 1, 1, 2)  # similarities 1, -1, -1, 1
    teacher = torch.tensor([1.0, 1.0]).view(1, 1, 1, 2)  # all 1
    assert pair_wise(student, teacher).item() == pytest.approx(2.0)


def test_lengths_and_rotations_of_the_channels_do_not_matter():
    teacher = torch.randn(1, 3, 4, 4)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3))
    lengths = torch.rand(1, 1, 4, 4) + 0.5
    student = torch.einsum("dc,nchw->ndhw", rotation, teacher) * lengths
    assert pair_wise(student, teacher, nodes=4).item() == pytest.approx(0, abs=1e-10)


def test_the_norm_is_not_detached():
    student = torch.randn(1, 3, 2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(pair_wise(student, torch.randn(1, 3, 2, 2)), student)
    along = (gradient * student).sum(dim=1)  # the loss does not change with a vector's length
    assert gradient.abs().max() > 1e-3
    assert along.abs().max() < 1e-6


def test_a_constant_norm_leaves_a_part_along_the_vector():
    torch.manual_seed(0)
    student, teacher = torch.randn(1, 3, 2, 2, requires_grad=True), torch.randn(1, 3, 2, 2)
    value, free = pair_wise(student, teacher, constant_norm=True), pair_wise(student, teacher)
    assert value == free
    (gradient,) = torch.autograd.grad(value, student)
    (expected,) = torch.autograd.grad(free, student)
    direction = F.normalize(student, dim=1).detach()
    along = (gradient * direction).sum(dim=1, keepdim=True)
    assert along.abs().max() > 1e-3
    torch.testing.assert_close(gradient - along * direction, expected)  # only the part along it differs


def test_refuses_no_nodes_and_no_windows():
    feature = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ConfigurationError, match="at least one node"):
        pair_wise(feature, feature, nodes=0)
    for window in (0, -1, 1.5):
        with pytest.raises(ConfigurationError, match="share of the map's side"):
            pair_wise(feature, feature, window=window)


def test_refuses_more_nodes_than_memory_holds():
    feature = torch.zeros(1, 1, 512, 512)
    with pytest.raises(ConfigurationError, match=r"256 x 256 nodes.* 16 GiB an image"):
        pair_wise(feature, feature, window=2)


@pytest.mark.parametrize(
    ("preset", "cells", "weight"),
    [
        (None, {"nodes": 32}, 10.0),
        ("authors", {"windows": (5, 5)}, 0.5),
        ("cirkd", {"windows": (2, 2)}, 10.0),
    ],
)
def test_method_is_one_term_of_the_last_feature(preset, cells, weight):
    method = PA.preset(preset) if preset else PA
    (term,) = method.build(method.settings(), Given(nn.Identity())).terms
    student, teacher = torch.randn(2, 3, 10, 10), torch.randn(2, 5, 10, 10)
    assert (term.student_taps, term.weight) == (("@feature",), weight)
    value = term.loss(student, teacher, None, ignore_index=255)
    assert value.item() == pytest.approx(naive(student, teacher, None, **cells), rel=1e-4)
