from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from napari_kdseg.distillation.auxiliary.paraphraser import (
    ParaphrasedTeacher,
    Paraphraser,
    ParaphraserStage,
    layers_and_shapes,
    new_paraphrasers,
)
from napari_kdseg.distillation.losses.cross_layer_correlation import cross_layer_correlation
from napari_kdseg.distillation.losses.reconstruction import reconstruction
from napari_kdseg.distillation.settings import AloneSettings
from napari_kdseg.errors import ConfigurationError

# -- loss ---------------------------------------------------------------------------------------------------------


def test_reconstruction_equals_naive_loop():
    made = torch.randn(2, 3, 4, 5).double(), torch.randn(2, 2, 3, 1).double()
    features = torch.randn(2, 3, 4, 5).double(), torch.randn(2, 2, 3, 1).double()
    expected = 0.0
    for one, feature in zip(made, features, strict=True):
        squares = [
            (a - b) ** 2 for a, b in zip(one.flatten().tolist(), feature.flatten().tolist(), strict=True)
        ]
        expected += sum(squares) / len(squares)
    assert reconstruction(made, features).item() == pytest.approx(expected, rel=1e-6)
    assert reconstruction(made[0], made[0]).item() == 0


def test_reconstruction_teaches_the_auto_encoder_only():
    made, feature = torch.randn(1, 2, 3, 3, requires_grad=True), torch.randn(1, 2, 3, 3, requires_grad=True)
    reconstruction(made, feature).backward()
    torch.testing.assert_close(made.grad, 2 * (made - feature).detach() / 18)
    assert feature.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reconstruction_in_half_precision(dtype):
    value = reconstruction(torch.full((1, 1, 1, 1), 300.0, dtype=dtype), torch.zeros(1, 1, 1, 1, dtype=dtype))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(9e4, rel=1e-2)  # above the largest float16


def test_reconstruction_refuses_other_shapes():
    with pytest.raises(ConfigurationError, match=r"\(1, 2, 3, 3\).*\(1, 4, 3, 3\)"):
        reconstruction(torch.zeros(1, 2, 3, 3), torch.zeros(1, 4, 3, 3))


# -- network ------------------------------------------------------------------------------------------------------


def test_layers_are_those_of_factor_transfer():
    paraphraser = Paraphraser(6, 4)
    encoder = [layer for layer in paraphraser.encoder if isinstance(layer, nn.Conv2d)]
    decoder = [layer for layer in paraphraser.decoder if isinstance(layer, nn.ConvTranspose2d)]
    assert [(one.in_channels, one.out_channels) for one in encoder] == [(6, 6), (6, 4), (4, 4)]
    assert [(one.in_channels, one.out_channels) for one in decoder] == [(4, 4), (4, 6), (6, 6)]
    assert all(one.kernel_size == (3, 3) and one.stride == (1, 1) for one in encoder + decoder)
    slopes = [one.negative_slope for one in paraphraser.modules() if isinstance(one, nn.LeakyReLU)]
    assert slopes == [0.1] * 5


@pytest.mark.parametrize("size", [(1, 1), (5, 8)])
def test_modes(size):
    paraphraser, feature = Paraphraser(6, 4), torch.randn(2, 6, *size, requires_grad=True)
    reconstructed, code = paraphraser(feature), paraphraser.paraphrase(feature)
    assert reconstructed.shape == feature.shape
    assert reconstructed.requires_grad
    assert code.shape == (2, 4, *size)
    assert not code.requires_grad
    torch.testing.assert_close(paraphraser.decoder(code), reconstructed)


def test_last_layer_is_linear_unless_asked():
    """With the authors' activation, what is negative comes out a tenth as large."""
    linear, active = Paraphraser(6, 4), Paraphraser(6, 4, final_activation=True)
    active.load_state_dict(linear.state_dict())
    feature = torch.randn(1, 6, 5, 5)
    made = linear(feature)
    assert (made < 0).any()
    torch.testing.assert_close(active(feature), torch.where(made < 0, 0.1 * made, made))


def test_drawn_from_the_seed_alone():
    before = torch.get_rng_state()
    one, same, other = (new_paraphrasers([4, 3], [2, 2], seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    key = "layers.0.encoder.0.weight"
    assert torch.equal(one[key], same[key])
    assert not torch.equal(one[key], other[key])


def test_half_precision_features_and_autocast():
    paraphraser, feature = Paraphraser(6, 4), torch.randn(1, 6, 4, 4)
    assert torch.isfinite(paraphraser(feature.half())).all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = reconstruction(paraphraser(feature), feature)
    value.backward()
    assert value.dtype == torch.float32
    assert all(torch.isfinite(parameter.grad).all() for parameter in paraphraser.parameters())


# -- stage --------------------------------------------------------------------------------------------------------


@pytest.fixture
def stage(tiny_net):
    teacher = tiny_net(seed=1).requires_grad_(False)
    paraphrasers = new_paraphrasers([8, 8], [3, 4], seed=0)
    return ParaphraserStage(teacher, ("encoder", "decoder"), paraphrasers, AloneSettings(), epochs_factor=0.5)


def train(stage, count, rate=3e-3):
    optimiser = torch.optim.Adam(stage.trainable_parameters(), lr=rate)
    image = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    values = []
    for _ in range(count):
        terms = stage.loss(image, torch.full((2, 16, 16), 255))
        optimiser.zero_grad()
        terms["loss"].backward()
        optimiser.step()
        values.append(terms["reconstruction"].item())
    return values


def test_stage_learns_to_reconstruct_without_labels_and_leaves_the_teacher(stage):
    assert (stage.name, stage.segments, stage.epochs_factor) == ("paraphraser", False, 0.5)
    before = copy.deepcopy(stage.teacher.state_dict())
    values = train(stage, 60, rate=1e-2)
    assert values[-1] < 0.5 * values[0]
    assert not stage.teacher.training
    assert all(torch.equal(before[name], tensor) for name, tensor in stage.teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in stage.teacher.parameters())


def test_stage_trains_both_paraphrasers_on_their_own_layer(stage):
    image = torch.randn(2, 3, 8, 8)
    value = stage.loss(image, torch.zeros(2, 8, 8, dtype=torch.long))["loss"]
    with torch.no_grad():
        shallow = stage.teacher.encoder(image)
        deep = stage.teacher.decoder(shallow.clone())
        first, second = stage.network.layers
        expected = (first(shallow) - shallow).square().mean() + (second(deep) - deep).square().mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_paraphrased_teacher_uses_what_the_stage_trained(stage):
    term = ParaphrasedTeacher(cross_layer_correlation, stage.network)
    train(stage, 2)
    generator = torch.Generator().manual_seed(4)
    student = tuple(torch.randn(2, c, 6, 6, generator=generator).requires_grad_() for c in (3, 4))
    teacher = tuple(torch.randn(2, 8, 6, 6, generator=generator).requires_grad_() for _ in range(2))
    target = torch.zeros(2, 6, 6, dtype=torch.long)
    stage.network.zero_grad()
    value = term(student, teacher, target, ignore_index=255)
    codes = tuple(layer.encoder(f) for layer, f in zip(stage.network.layers, teacher, strict=True))
    assert value.item() == cross_layer_correlation(student, codes).item()
    value.backward()
    assert all(feature.grad.any() for feature in student)
    assert all(feature.grad is None for feature in teacher)
    assert all(parameter.grad is None for parameter in term.parameters())
    assert term.own_optimiser  # the student's optimiser leaves it alone
    assert term.after_step(0, 1) == {}
    assert any(key.startswith("paraphrasers.") for key in term.state_dict())


def test_layers_and_shapes(tiny_net):
    network = tiny_net(classes=5).train()
    before = copy.deepcopy(network.state_dict())
    paths, shapes = layers_and_shapes(network, ("encoder", "logits", "@feature"), (3, 16, 8))
    assert paths == ["encoder", "logits", "decoder"]
    assert [tuple(shape) for shape in shapes] == [(1, 8, 16, 8), (1, 5, 16, 8), (1, 8, 16, 8)]
    assert network.training
    assert all(np.array_equal(before[name], tensor) for name, tensor in network.state_dict().items())
    with pytest.raises(ConfigurationError, match="no layer 'nowhere'"):
        layers_and_shapes(network, ("nowhere",), (3, 16, 8))


def test_layers_that_are_no_feature_maps_are_refused():
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(2), nn.Unflatten(2, (8, 8)))
    with pytest.raises(ConfigurationError, match=r"'1' puts out \[1, 2, 64\], no feature map"):
        layers_and_shapes(network, ("1",), (3, 8, 8))
