from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from napari_kdseg.distillation.distiller import Given
from napari_kdseg.distillation.losses.mgd import MaskedGenerativeDistillation
from napari_kdseg.distillation.methods.mgd import MGD
from napari_kdseg.errors import ConfigurationError


def make(student_channels=3, teacher_channels=4, seed=0, **constants):
    return MaskedGenerativeDistillation(
        [(1, student_channels, 5, 6)],
        [(1, teacher_channels, 5, 6)],
        torch.Generator().manual_seed(seed),
        **constants,
    )


def convolve(feature, weight, bias):
    """3x3 convolution with zeros around, pixel by pixel in float64."""
    padded = np.pad(feature, ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((len(weight), *feature.shape[1:]))
    for o in range(len(weight)):
        for i in range(feature.shape[1]):
            for j in range(feature.shape[2]):
                out[o, i, j] = (weight[o] * padded[:, i : i + 3, j : j + 3]).sum() + bias[o]
    return out


def naive(module, student, teacher, target, mask):
    """Mean of squares over labelled pixels; 1x1 convolution, mask and generation written out."""
    parameters = {name: p.detach().double().numpy() for name, p in module.named_parameters()}
    squares = []
    for n in range(len(student)):
        feature = student[n].double().numpy()
        if "align.0.weight" in parameters:
            feature = np.einsum("oc,chw->ohw", parameters["align.0.weight"][:, :, 0, 0], feature)
            feature = feature + parameters["align.0.bias"][:, None, None]
        feature = feature * mask[n, 0].double().numpy()
        for layer in ("0", "2"):
            weight, bias = (
                parameters[f"generation.0.{layer}.weight"],
                parameters[f"generation.0.{layer}.bias"],
            )
            feature = convolve(np.maximum(feature, 0) if layer == "2" else feature, weight, bias)
        for i in range(feature.shape[1]):
            for j in range(feature.shape[2]):
                if target is None or target[n, 2 * i, 2 * j] != 255:
                    squares.append(((feature[:, i, j] - teacher[n, :, i, j].double().numpy()) ** 2).mean())
    return np.mean(squares)


@pytest.mark.parametrize("channels", [(3, 4), (2, 2)])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.75])
@pytest.mark.parametrize("labelled", [True, False])
def test_equals_naive_loop(channels, share, labelled):
    module = make(*channels, masked_share=share)
    student, teacher = torch.randn(2, channels[0], 5, 6), torch.randn(2, channels[1], 5, 6)
    target = torch.randint(0, 3, (2, 10, 12))
    target[0, :5] = 255
    target = target if labelled else None
    mask = copy.deepcopy(module).draw_mask(student)
    expected = naive(module, student, teacher, target, mask)
    assert module(student, teacher, target).item() == pytest.approx(expected, rel=1e-5)


def test_sum_is_the_released_scale():
    student, teacher = torch.randn(2, 3, 5, 6), torch.randn(2, 4, 5, 6)
    mean, summed = make(), make(reduction="sum")
    assert summed(student, teacher).item() == pytest.approx(
        4 * 5 * 6 * mean(student, teacher).item(), rel=1e-5
    )


def test_masks_hide_three_quarters_of_the_pixels_and_change():
    module = make()
    masks = [module.draw_mask(torch.zeros(4, 3, 64, 64)) for _ in range(2)]
    assert masks[0].shape == (4, 1, 64, 64)
    assert set(masks[0].unique().tolist()) == {0.0, 1.0}
    assert masks[0].mean().item() == pytest.approx(0.25, abs=0.02)
    assert not torch.equal(*masks)


def test_masked_pixels_are_not_seen():
    module = make(3, 3)
    student, teacher = torch.randn(1, 3, 5, 6, requires_grad=True), torch.randn(1, 3, 5, 6)
    mask = copy.deepcopy(module).draw_mask(student)
    module(student, teacher).backward()
    hidden = (mask == 0).expand_as(student)
    assert not student.grad[hidden].any()
    assert student.grad[~hidden].any()


def test_draws_come_from_its_generator_alone_and_resume():
    student, teacher = torch.randn(1, 3, 5, 6), torch.randn(1, 4, 5, 6)
    first, second = make(), make()
    torch.rand(7)  # the global generator plays no part
    assert first(student, teacher).item() == second(student, teacher).item()
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    resumed = make(seed=99)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    for _ in range(3):
        assert resumed(student, teacher).item() == first(student, teacher).item()


def test_generation_and_alignment_learn():
    module = make(masked_share=0.0)
    student, teacher = torch.randn(2, 3, 5, 6), torch.randn(2, 4, 5, 6)
    before = module(student, teacher).item()
    for _ in range(80):
        module.zero_grad()
        module(student, teacher).backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter -= 0.2 * parameter.grad
    assert all(parameter.grad.any() for parameter in module.parameters())
    assert module(student, teacher).item() < 0.9 * before


def test_a_teacher_of_another_size_is_resized():
    student, teacher = torch.randn(1, 3, 5, 6), torch.randn(1, 4, 3, 9)
    resized = F.interpolate(teacher, size=(5, 6), mode="bilinear", align_corners=False)
    module = make()
    mask = copy.deepcopy(module).draw_mask(student)
    assert module(student, teacher).item() == pytest.approx(
        naive(module, student, resized, None, mask), rel=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_and_half_precision(dtype):
    module = make()
    student, teacher = torch.randn(1, 3, 5, 6).to(dtype), torch.randn(1, 4, 5, 6).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = module(student, teacher)
    value.backward()
    assert value.dtype == torch.float32
    assert all(torch.isfinite(parameter.grad).all() for parameter in module.parameters())


def test_several_pairs_are_summed():
    shapes = [(1, 2, 4, 4), (1, 3, 6, 6)], [(1, 5, 4, 4), (1, 3, 6, 6)]
    module = MaskedGenerativeDistillation(*shapes, torch.Generator(), masked_share=0.0)
    student, teacher = ([torch.randn(shape) for shape in side] for side in shapes)
    expected = 0.0
    for k in range(2):
        generated = module.generation[k](module.align[k](student[k]))
        expected += (generated - teacher[k]).square().mean().item()
    assert module(tuple(student), tuple(teacher)).item() == pytest.approx(expected, rel=1e-5)


def test_refusals():
    with pytest.raises(ConfigurationError, match="below 1"):
        make(masked_share=1.0)
    with pytest.raises(ConfigurationError, match="2 student layers"):
        MaskedGenerativeDistillation([(1, 2, 3, 3)] * 2, [(1, 2, 3, 3)], torch.Generator())


def test_method_declares_a_learned_term():
    for method, weight, reduction in ((MGD, 1.0, "mean"), (MGD.preset("authors"), 2e-5, "sum")):
        (term,) = method.build(method.settings(), Given(nn.Identity())).terms
        module = term.learned([(1, 3, 5, 6)], [(1, 4, 5, 6)], torch.Generator())
        assert term.loss is None
        assert (term.weight, module.reduction, module.masked_share) == (weight, reduction, 0.75)
