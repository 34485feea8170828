"""FitNet and MIMIC, the connectors, and what every loss on features must hold."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from napari_kdseg.distillation.connectors import conv1x1, match_channels
from napari_kdseg.distillation.distiller import Given
from napari_kdseg.distillation.losses.attention_transfer import attention_transfer
from napari_kdseg.distillation.losses.fitnet import fitnet
from napari_kdseg.distillation.losses.fsp import fsp
from napari_kdseg.distillation.losses.ifvd import ifvd
from napari_kdseg.distillation.losses.mgd import MaskedGenerativeDistillation
from napari_kdseg.distillation.losses.pair_wise import pair_wise
from napari_kdseg.distillation.losses.pairs import layer_pairs, over_pairs
from napari_kdseg.distillation.losses.spkd import spkd
from napari_kdseg.distillation.methods.fitnet import FITNET
from napari_kdseg.distillation.methods.mimic import MIMIC
from napari_kdseg.errors import ConfigurationError


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fsp_of_halves(student, teacher, target=None, **constants):
    """FSP of the first channels with the last ones, so that it can be called with one feature a side."""
    return fsp((student[:, :2], student[:, 1:]), (teacher[:, :2], teacher[:, 1:]), target, **constants)


def mgd_with_fresh_weights(student, teacher, target=None, **constants):
    module = MaskedGenerativeDistillation([student.shape], [teacher.shape], torch.Generator().manual_seed(1))
    module.to(torch.promote_types(student.dtype, torch.float32))
    return module(student, teacher, target, **constants)


EVERY_LOSS = {
    "fitnet": fitnet,
    "at": attention_transfer,
    "at mean": partial(attention_transfer, reduction="mean", exponent=3.5),
    "fsp": fsp_of_halves,
    "spkd": spkd,
    "pa": pair_wise,
    "ifvd": ifvd,
    "mgd": mgd_with_fresh_weights,
}
every_loss = pytest.mark.parametrize("loss", EVERY_LOSS.values(), ids=EVERY_LOSS)


# --- FitNet and MIMIC ---


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 4, 5), (3, 2, 7, 2)])
@pytest.mark.parametrize("labelled", [True, False])
def test_equals_naive_loop(shape, labelled):
    student, teacher = random(*shape), random(*shape, seed=1)
    target = torch.randint(0, 3, (shape[0], 2 * shape[2], 2 * shape[3]))
    target[0, :, : 2 * (shape[3] // 2)] = 255
    f_s, f_t = student.double().numpy(), teacher.double().numpy()
    squares = [
        (f_s[n, c, i, j] - f_t[n, c, i, j]) ** 2
        for n, c, i, j in np.ndindex(*shape)
        if not labelled or target[n, 2 * i, 2 * j] != 255
    ]
    value = fitnet(student, teacher, target if labelled else None)
    assert value.item() == pytest.approx(np.mean(squares), rel=1e-5)


def test_a_teacher_of_another_size_is_resized():
    student, teacher = random(1, 2, 8, 6), random(1, 2, 3, 5, seed=1)
    resized = F.interpolate(teacher, size=(8, 6), mode="bilinear", align_corners=False)
    assert fitnet(student, teacher).item() == pytest.approx(
        ((student - resized) ** 2).mean().item(), rel=1e-5
    )


def test_fitnet_refuses_other_channels_with_both_shapes():
    with pytest.raises(ConfigurationError, match=r"\(1, 2, 3, 3\).*\(1, 4, 3, 3\)"):
        fitnet(torch.zeros(1, 2, 3, 3), torch.zeros(1, 4, 3, 3))


def test_both_methods_are_one_weighted_term_on_whole_maps():
    for method, weight in ((FITNET, 10.0), (MIMIC, 5.0)):
        (term,) = method.build(method.settings(), Given(nn.Identity())).terms
        assert (term.name, term.weight) == (method.name, weight)
        assert term.student_taps == term.teacher_taps == ("@feature",)
        student, teacher = random(2, 3, 4, 4), random(2, 5, 4, 4, seed=1)
        regressor = term.connector([student.shape], [teacher.shape])
        by_hand = (regressor.of_layer[0](student) - teacher).square().mean()
        value = term.loss(regressor(student)[0], teacher, ignore_index=255)
        assert value.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_layers_may_be_chosen():
    settings = FITNET.settings({"student_layers": ("a", "b"), "teacher_layers": ("c", "d")})
    (term,) = FITNET.build(settings, Given(nn.Identity())).terms
    assert (term.student_taps, term.teacher_taps) == (("a", "b"), ("c", "d"))


# --- connectors ---


def test_conv1x1_is_a_matrix_at_every_pixel():
    student = random(2, 3, 4, 5), random(2, 2, 3, 3)
    module = conv1x1([(1, 3, 4, 5), (1, 2, 3, 3)], [(1, 6, 8, 8), (1, 2, 9, 9)])
    assert len(list(module.parameters())) == 2  # no bias
    for convolution, feature, aligned in zip(module.of_layer, student, module(*student), strict=True):
        matrix = convolution.weight[:, :, 0, 0]
        torch.testing.assert_close(aligned, torch.einsum("oc,nchw->nohw", matrix, feature))
    assert [tuple(a.shape) for a in module(*student)] == [(2, 6, 4, 5), (2, 2, 3, 3)]


def test_match_channels_leaves_equal_channels_alone():
    one, other = random(1, 3, 4, 4), random(1, 2, 4, 4)
    module = match_channels([one.shape, other.shape], [(1, 3, 9, 9), (1, 5, 9, 9)])
    same, matched = module(one, other)
    assert torch.equal(same, one)
    assert matched.shape == (1, 5, 4, 4)


@pytest.mark.parametrize("connector", [conv1x1, match_channels, layer_pairs])
def test_unequal_numbers_of_layers_are_refused(connector):
    shape = (1, 2, 3, 3)
    with pytest.raises(ConfigurationError, match="2 student layers but 1 teacher layers"):
        connector([shape, shape], [shape])
    with pytest.raises(ConfigurationError, match="1 student layers but 2 teacher layers"):
        over_pairs(fitnet, torch.zeros(shape), (torch.zeros(shape), torch.zeros(shape)))


def test_over_pairs_sums():
    student = random(2, 3, 4, 4), random(2, 5, 2, 2)
    teacher = random(2, 3, 4, 4, seed=1), random(2, 5, 2, 2, seed=1)
    target = torch.zeros(2, 8, 8, dtype=torch.long)
    both = over_pairs(fitnet, student, teacher, target, ignore_index=255)
    by_hand = sum((s - t).square().mean() for s, t in zip(student, teacher, strict=True))
    torch.testing.assert_close(both, by_hand)
    torch.testing.assert_close(over_pairs(fitnet, student[0], teacher[0]), fitnet(student[0], teacher[0]))


# --- what every loss on features must hold ---


def degenerate(name):
    """A student's and a teacher's feature ``[2, 3, 6, 6]`` and labels ``[2, 12, 12]``, one of them degenerate."""
    student, teacher = random(2, 3, 6, 6), random(2, 3, 6, 6, seed=1)
    target = torch.randint(0, 3, (2, 12, 12), generator=torch.Generator().manual_seed(2))
    if name == "all background":
        target[:] = 0
    elif name == "absent class":
        target[target == 1] = 2
    elif name == "one pixel":
        target[:] = 0
        target[0, 4, 4] = 1
    elif name == "one labelled pixel":
        target[:] = 255
        target[0, 4, 4] = 1
    elif name == "image without label":
        target[0] = 255
    elif name == "constant":
        student, teacher = torch.full_like(student, 2.0), torch.full_like(teacher, -1.0)
    elif name == "zero":
        student, teacher = torch.zeros_like(student), torch.zeros_like(teacher)
    elif name == "batch 1":
        student, teacher, target = student[:1], teacher[:1], target[:1]
    elif name == "odd sizes":
        student, teacher, target = student[..., :5, :3], teacher[..., :5, :3], target[..., :11, :7]
    elif name == "one pixel feature":
        student, teacher = student[..., :1, :1], teacher[..., :1, :1]
    elif name == "other sizes":
        teacher = teacher[..., :4, :5]
    elif name == "large":
        student, teacher = 100 * student, 100 * teacher  # sums of squares overflow float16
    return student, teacher, target


DEGENERATE = [
    "all background",
    "absent class",
    "one pixel",
    "one labelled pixel",
    "image without label",
    "constant",
    "zero",
    "batch 1",
    "odd sizes",
    "one pixel feature",
    "other sizes",
    "large",
]


@every_loss
@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_finite_on_degenerate_input(loss, name, dtype):
    student, teacher, target = degenerate(name)
    student = student.to(dtype).requires_grad_()
    value = loss(student, teacher.to(dtype), target)
    value.backward()
    assert value.shape == ()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert value >= 0
    assert torch.isfinite(student.grad).all()


@every_loss
def test_nothing_labelled_is_zero_with_graph(loss):
    student = random(2, 3, 6, 6).requires_grad_()
    value = loss(student, random(2, 3, 6, 6, seed=1), torch.full((2, 12, 12), 255))
    value.backward()
    assert value.item() == 0
    assert not student.grad.any()


@every_loss
def test_gradient_reaches_the_student_only(loss):
    student, teacher, target = (tensor.clone() for tensor in degenerate("none"))
    student.requires_grad_()
    teacher.requires_grad_()
    loss(student, teacher, target).backward()
    assert student.grad.any()
    assert teacher.grad is None


@pytest.mark.parametrize(
    "name", [name for name in EVERY_LOSS if name != "mgd"]
)  # generates: equal features differ
def test_zero_and_flat_where_both_agree(name):
    student, _, target = degenerate("none")
    student.requires_grad_()
    value = EVERY_LOSS[name](student, student.detach(), target)
    (gradient,) = torch.autograd.grad(value, student)
    assert value.item() == pytest.approx(0, abs=1e-10)
    assert gradient.abs().max() < 1e-5


@pytest.mark.parametrize(
    "name", [name for name in EVERY_LOSS if name != "mgd"]
)  # convolutions may run in bfloat16
def test_autocast_changes_nothing(name):
    student, teacher, target = degenerate("none")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = EVERY_LOSS[name](student, teacher, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, EVERY_LOSS[name](student, teacher, target), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "name", [name for name in EVERY_LOSS if name != "mgd"]
)  # 3x3 convolutions see neighbours
def test_ignored_pixels_count_for_nothing(name):
    student, teacher, target = degenerate("none")
    target[:, 4:8, 2:6] = 255  # pixels 2:4, 1:3 of the features
    other_student, other_teacher = student.clone(), teacher.clone()
    other_student[:, 0, 2:4, 1:3] = 77.0
    other_teacher[:, 1, 2:4, 1:3] = -33.0
    value = EVERY_LOSS[name](student, teacher, target)
    assert EVERY_LOSS[name](other_student, other_teacher, target).item() == pytest.approx(
        value.item(), rel=1e-6
    )
    everything = torch.where(target == 255, 0, target)
    counted = EVERY_LOSS[name](other_student, other_teacher, everything).item()
    assert counted != pytest.approx(value.item(), rel=1e-3)


@every_loss
@pytest.mark.parametrize("labelled", [True, False])
def test_gradient_equals_finite_differences(loss, labelled):
    student, teacher = random(2, 3, 3, 4).double(), random(2, 3, 3, 4, seed=1).double()
    target = torch.randint(0, 2, (2, 6, 8), generator=torch.Generator().manual_seed(2))
    target[0, :2] = 255
    target = target if labelled or loss is ifvd else None
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, target), student.requires_grad_())
