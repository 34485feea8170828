"""What each part of a loss pulls at the network, beside gradients of the parts computed one by one."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from napari_kdseg.distillation import AloneSettings, StudentStage, Term, get_method, kd
from napari_kdseg.distillation.gradients import gradient_norms

PLAIN = AloneSettings()


def feature_error(student, teacher, target, ignore_index=255):
    return (student - teacher).square().mean()


def projection(student, teacher):
    return nn.Conv2d(student[0][1], teacher[0][1], 1)


class Constant(nn.Module):
    """A term that learns, and does not read the student."""

    def __init__(self, *_):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(2.0))

    def forward(self, student, teacher, target, ignore_index=255):
        return self.value.square()


@pytest.fixture
def stage(tiny_net) -> StudentStage:
    terms = [
        Term("kd", kd, weight=3.0),
        Term("features", feature_error, ("decoder",), ("decoder",), weight=1e5, connector=projection),
        Term("number", lambda *_, **__: torch.tensor(1.0)),
        Term("beside", None, weight=5.0, learned=Constant),
        Term("late", kd, weight=7.0, schedule=lambda epoch: float(epoch > 0)),
    ]
    made = StudentStage(tiny_net(1), PLAIN, terms, teachers=[tiny_net(2).eval()])
    made.begin_epoch(0, 2)
    made.network.train()
    return made


def naive(stage, image, target) -> dict[str, float]:
    """A forward and a backward pass for each part, on copies; the norm weight by weight."""
    norms = {}
    for name in ("segmentation", *(term.name for term in stage.terms)):
        own = copy.deepcopy(stage)
        values = own.loss(image, target)
        part = values[name if name == "segmentation" else f"weighted/{name}"]
        if part.requires_grad:
            part.backward()
        squares = [
            weight.grad.double().square().sum().item()
            for weight in own.network.parameters()
            if weight.grad is not None
        ]
        norms[name] = math.sqrt(sum(squares))
    return norms


def test_equals_a_backward_pass_for_each_part(stage, lesions):
    image, target = lesions(0)
    expected = naive(stage, image, target)
    found = gradient_norms(stage, stage.loss(image, target))
    assert found.keys() == expected.keys()
    # Sums of some thousand squares in float32: each is rounded by 6e-8 of its size.
    assert found == pytest.approx(expected, rel=1e-5)
    assert found["kd"] > 0
    assert found["features"] > 100 * found["segmentation"]
    assert found["number"] == found["beside"] == found["late"] == 0


def test_touches_nothing(stage, lesions):
    image, target = lesions(0)
    other = copy.deepcopy(stage)
    values = stage.loss(image, target)
    before = torch.get_rng_state()
    gradient_norms(stage, values)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(weight.grad is None for weight in stage.trainable_parameters())
    values["loss"].backward()
    other.loss(image, target)["loss"].backward()
    for ours, theirs in zip(stage.trainable_parameters(), other.trainable_parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)
    assert all(
        torch.equal(ours, theirs)
        for ours, theirs in zip(stage.network.buffers(), other.network.buffers(), strict=True)
    )


def test_the_scale_of_16_bits_is_taken_out_again(stage, lesions):
    values = stage.loss(*lesions(0))
    # A power of two changes no digit.
    assert gradient_norms(stage, values, scale=2.0**10) == gradient_norms(stage, values)


def test_a_frozen_network_and_one_without_terms(stage, lesions):
    stage.network.requires_grad_(False)
    assert set(gradient_norms(stage, stage.loss(*lesions(0))).values()) == {0.0}
    assert gradient_norms(stage, {"loss": torch.ones(())}) == {}


@pytest.mark.parametrize("method", ["coco", "skd", "cirkd", "emkd", "plc-kd"])
def test_terms_that_learn_remember_or_have_a_critic(tiny_net, lesions, method):
    """What a critic or a memory does in a step is the same after a look: the values of the second step are."""
    method = get_method(method)
    layers = dict.fromkeys(("student_layers", "teacher_layers"), ("encoder", "decoder"))
    one = dict.fromkeys(layers, ("decoder",))
    known = {"coco": layers, "emkd": layers, "skd": one, "cirkd": one}.get(method.name, {})
    curves = []
    for looks in (False, True):
        torch.manual_seed(0)
        stage = method.stages(
            tiny_net(2), tiny_net(1), method.settings(known), seed=1, input_shape=(3, 32, 32)
        )[-1]
        stage.begin_epoch(0, 2)
        stage.network.train()
        optimiser = torch.optim.SGD(stage.trainable_parameters(), lr=1e-3)
        curve = []
        for number in range(2):
            values = stage.loss(*lesions(number, size=32))
            if looks:
                norms = gradient_norms(stage, values)
                assert set(norms) == {"segmentation", *(term.name for term in stage.terms)}
                assert norms["segmentation"] > 0
            optimiser.zero_grad()
            values["loss"].backward()
            optimiser.step()
            curve.append({name: value.item() for name, value in values.items()} | stage.after_step())
        curves.append(curve)
    assert curves[0] == curves[1]


def test_in_16_bits_small_gradients_are_there_with_the_scale_alone(tiny_net, lesions):
    """Half precision has no numbers below 6e-8; the gradient of a term that counts 1e-7 lies below at most pixels."""
    stage = StudentStage(tiny_net(1), PLAIN, [Term("kd", kd, weight=1e-7)], teachers=[tiny_net(2).eval()])
    exact = gradient_norms(stage, stage.loss(*lesions(0)))
    with torch.autocast("cpu", dtype=torch.float16):
        values = stage.loss(*lesions(0))
    assert gradient_norms(stage, values)["kd"] < 0.5 * exact["kd"]
    # Half precision has three digits, and some layers multiply their error.
    assert gradient_norms(stage, values, scale=2.0**16)["kd"] == pytest.approx(exact["kd"], rel=0.02)
