"""Every method and variant, on real networks of different families: it trains, and resumes to the last digit."""

from __future__ import annotations

import copy
import functools
import io
import itertools
import math
import re

import pytest
import torch
from torch import nn

from napari_kdseg.distillation import METHODS, get_method, method_names
from napari_kdseg.distillation.declarations import Stage
from napari_kdseg.networks import create

PAIRS = {
    "convolutions": (("unet/resnet18", {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}), ("enet", {})),
    "transformer": (
        ("segformer/mit_b0", {"decoder_segmentation_channels": 32}),
        ("linknet/mobilenet_v2", {"encoder_depth": 3}),
    ),
}
SIZE = 32
FEWEST = 32
"""Values that batch normalisation must see of each channel. With two of them (an image each, at stride 32) it puts out
their sign: the gradient is in the thousands of millions, and what comes of it rounding."""
QUICK = {
    "queue_length": 256, "pixels_per_image": 64, "boundary_width": 2, "warm_up_epochs": 0,
}  # fmt: skip
ALL = [*method_names(), "cwd+kd", "plc-kd+cwd", "at+fitnet+kd", "emkd:pmd+imd+cwd"]


@functools.cache
def networks(pair: str, classes: int):
    torch.manual_seed(3)
    return [create(name, classes=classes, **options) for name, options in PAIRS[pair]]


def batch(classes: int, seed: int = 0):
    """Blocks of every class on noise, and some ignored pixels."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, classes, (2, 4, 4), generator=generator)
    target = target.repeat_interleave(SIZE // 4, 1).repeat_interleave(SIZE // 4, 2)
    image = torch.randn(2, 3, SIZE, SIZE, generator=generator) + target[:, None] / classes
    target[:, :3] = 255
    return image, target


def stages_of(name: str, pair: str, classes: int) -> list[Stage]:
    method = get_method(name)
    teacher, student = (copy.deepcopy(network) for network in networks(pair, classes))
    known = method.settings_class.model_fields
    values = {key: QUICK[short] for key in known for short in QUICK if key in (short, f"plc_kd_{short}")}
    return method.stages(teacher, student, method.settings(values), seed=5, input_shape=(3, SIZE, SIZE))


def steps(
    stage: Stage, optimiser: torch.optim.Optimizer, classes: int, numbers: range
) -> list[dict[str, float]]:
    seen = []
    for number in numbers:
        values = stage.loss(*batch(classes, number))
        optimiser.zero_grad()
        values["loss"].backward()
        optimiser.step()
        figures = stage.after_step()
        seen.append({name: value.item() for name, value in values.items()} | figures)
        broken = {name: value for name, value in seen[-1].items() if not math.isfinite(value)}
        assert not broken, f"step {number + 1} of the {stage.name} is not finite: {broken}"
    return seen


def begin(stage: Stage) -> torch.optim.Optimizer:
    stage.network.train()
    stage.begin_epoch(0, 2)
    return torch.optim.SGD(stage.trainable_parameters(), lr=1e-4)


@pytest.mark.parametrize("pair", PAIRS)
def test_batch_normalisation_sees_enough(pair):
    seen: dict[nn.Module, int] = {}
    for network in (copy.deepcopy(one).train() for one in networks(pair, 2)):
        layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
        for layer in layers:
            layer.register_forward_pre_hook(
                lambda layer, inputs: seen.update({layer: inputs[0].numel() // inputs[0].shape[1]})
            )
        network(batch(2)[0]).sum().backward()
    assert min(count for layer, count in seen.items() if layer.weight.grad is not None) >= FEWEST


def _cases():
    """All methods on both pairs with few and many classes; one case of each method stands for them in ``numeric``."""
    for name, pair, classes in itertools.product(ALL, PAIRS, (2, 7)):
        stands = ":" not in name and (pair, classes) == ("transformer", 7)
        yield pytest.param(
            name, pair, classes, marks=pytest.mark.numeric if stands else (), id=f"{name}-{pair}-{classes}"
        )


@pytest.mark.parametrize(("name", "pair", "classes"), [*_cases()])
def test_two_steps_then_a_resumed_third(name, pair, classes):
    """After two steps, state and weights go to disk; a run begun anew from them takes the same third step."""
    method = get_method(name)
    for stage, again in zip(stages_of(name, pair, classes), stages_of(name, pair, classes), strict=True):
        optimiser = begin(stage)
        torch.manual_seed(1)
        steps(stage, optimiser, classes, range(2))
        saved = io.BytesIO()
        torch.save(
            {
                "stage": stage.state_dict(),
                "network": stage.network.state_dict(),
                "random": torch.get_rng_state(),
            },
            saved,
        )
        (third,) = steps(stage, optimiser, classes, range(2, 3))
        state = torch.load(io.BytesIO(saved.getvalue()), weights_only=True)
        optimiser = begin(again)
        again.network.load_state_dict(state["network"])
        again.load_state_dict(state["stage"])
        torch.set_rng_state(state["random"])
        assert steps(again, optimiser, classes, range(2, 3)) == [third]
    assert stage.name == "student"
    weighted = sum(value for key, value in third.items() if key.startswith("weighted/"))
    assert third["loss"] == pytest.approx(third["segmentation"] + weighted, rel=1e-4)
    if method.needs_teacher:
        assert weighted != 0 or method.caution(classes, 2)
        own = {id(parameter) for parameter in stage.trainable_parameters()}
        (teacher,) = {reader.network for reader in stage.readers} - {None}
        assert not own & {id(parameter) for parameter in teacher.parameters()}
        assert not teacher.training
        assert not any("teacher" in key for key in stage.state_dict())


def test_the_listing_says_what_each_is():
    for method in METHODS.values():
        assert method.title
        assert method.sentence.endswith(".")
        assert "=" in method.equation
        assert re.search("sum|mean", method.scale), "a weight means nothing without what it multiplies"
        assert method.reference or method.name == "alone"
        for preset in method.presets:
            assert method.preset(preset).settings() is not None


WANTED = [
    *("plc-kd", "plc-kd-paper", "coco", "emkd", "emkd-paper"),
    *("kd", "fitnet", "at", "fsp", "spkd", "pa", "skd", "ifvd", "cwd", "cirkd", "dkd", "mimic", "local"),
    *("dist", "mgd", "logit-std"),
]


@pytest.mark.parametrize("name", WANTED)
def test_the_methods_of_the_papers_are_there(name):
    assert get_method(name).name == name


@pytest.mark.parametrize(
    ("name", "classes", "batch_size", "word"),
    [
        ("dkd", 2, 8, "2 classes"),
        ("dist", 2, 8, "2 classes"),
        ("logit-std", 2, 8, "2 classes"),
        ("spkd", 7, 1, "batch"),
        ("spkd+dkd", 2, 1, "batch"),
    ],
)
def test_what_teaches_nothing_is_said(name, classes, batch_size, word):
    said = " ".join(get_method(name).caution(classes, batch_size))
    assert word in said.replace("two classes", "2 classes")
    assert not get_method(name).caution(7, 8)
