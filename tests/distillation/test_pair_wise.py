from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from napari_kdseg.distillation.losses.pair_wise import pair_wise
from napari_kdseg.distillation.methods.pair_wise import PA
from napari_kdseg.errors import ConfigurationError


def naive_nodes(feature, target, n, height, width):
    """The nodes' vectors of image n, cell by cell: maximum of each channel over labelled pixels, or ``None``."""
    feature = feature[n].double().numpy()
    rows, columns = feature.shape[1:]
    nodes = []
    for i in range(height):
        for j in range(width):
            pixels = [
                feature[:, y, x]
                for y in range(i * rows // height, -(-(i + 1) * rows // height))
                for x in range(j * columns // width, -(-(j + 1) * columns // width))
                if target is None
                or target[n, y * target.shape[1] // rows, x * target.shape[2] // columns] != 255
            ]
            nodes.append(np.max(pixels, axis=0) if pixels else None)
    return nodes


def cosine(u, v):
    lengths = np.linalg.norm(u) * np.linalg.norm(v)
    return u @ v / lengths if lengths else 0.0


def naive(student, teacher, target, nodes):
    height = min(nodes, student.shape[2], teacher.shape[2])
    width = min(nodes, student.shape[3], teacher.shape[3])
    images = []
    for n in range(len(student)):
        of_student = naive_nodes(student, target, n, height, width)
        of_teacher = naive_nodes(teacher, target, n, height, width)
        used = [r for r in range(height * width) if of_student[r] is not None and of_teacher[r] is not None]
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


def test_refuses_no_nodes():
    with pytest.raises(ConfigurationError, match="at least one node"):
        pair_wise(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), nodes=0)


@pytest.mark.parametrize(("preset", "nodes", "weight"), [(None, 8, 10.0), ("authors", 2, 0.5)])
def test_method_is_one_term_of_the_last_feature(preset, nodes, weight):
    method = PA.preset(preset) if preset else PA
    (term,) = method.build(method.settings()).terms
    student, teacher = torch.randn(2, 3, 10, 10), torch.randn(2, 5, 10, 10)
    assert (term.student_taps, term.weight) == (("@feature",), weight)
    value = term.loss(student, teacher, None, ignore_index=255)
    assert value.item() == pytest.approx(naive(student, teacher, None, nodes), rel=1e-4)
