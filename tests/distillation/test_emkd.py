"""The method EMKD: its parts, weights, variants (tables IV and V), and the paper's literal forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from napari_kdseg.distillation.distiller import Given
from napari_kdseg.distillation.losses.importance_map import importance_map
from napari_kdseg.distillation.losses.prediction_map import prediction_map
from napari_kdseg.distillation.losses.region_affinity import region_affinity
from napari_kdseg.distillation.methods.emkd import EMKD, EMKD_PAPER

LAYERS = {"student_layers": ("encoder", "decoder"), "teacher_layers": ("encoder", "decoder")}
VARIANTS = ["pmd", "imd", "rad", "pmd+imd", "pmd+rad", "imd+rad", "pmd+imd+rad"]
WEIGHTS = {"pmd": 0.1, "imd": 0.9, "rad": 0.9}


def variants(method):
    return [method, *(method.preset(name) for name in method.presets)]


@pytest.mark.parametrize("method", [EMKD, EMKD_PAPER], ids=lambda method: method.name)
def test_variants_are_the_rows_of_table_iv(method):
    assert list(method.presets) == VARIANTS
    for name in VARIANTS:
        variant = method.preset(name)
        recipe = variant.build(variant.settings(), Given(nn.Identity()))
        assert {term.name: term.weight for term in recipe.terms} == {
            part: WEIGHTS[part] for part in name.split("+")
        }
    whole = method.build(method.settings(), Given(nn.Identity()))
    assert {term.name: term.weight for term in whole.terms} == WEIGHTS


@pytest.mark.parametrize("method", [EMKD, EMKD_PAPER], ids=lambda method: method.name)
def test_layers_are_the_first_and_the_last_pair_or_those_chosen(method):
    terms = {term.name: term for term in method.build(method.settings(), Given(nn.Identity())).terms}
    for part in ("imd", "rad"):
        assert terms[part].student_taps == terms[part].teacher_taps == ("@stem", "@middle")
    terms = {term.name: term for term in method.build(method.settings(LAYERS), Given(nn.Identity())).terms}
    for part in ("imd", "rad"):
        assert terms[part].student_taps == terms[part].teacher_taps == ("encoder", "decoder")
    assert terms["pmd"].student_taps == ("logits",)


def test_names_and_forms():
    assert (EMKD.name, EMKD_PAPER.name) == ("emkd", "emkd-paper")
    printed = {
        "temperature": 1.0,
        "direction": "reverse",
        "power": 2,
        "importance_norm": "l1",
        "importance_resize": "pool",
        "region_reduce": "mean",
        "region_p": 1,
    }
    for variant in variants(EMKD_PAPER):
        settings = variant.settings()
        assert {name: getattr(settings, name) for name in printed} == printed
    released = EMKD.settings()
    assert (released.temperature, released.direction, released.power) == (4.0, "forward", 4)
    assert (released.importance_norm, released.importance_resize) == ("l2sq", "bilinear")
    assert (released.region_reduce, released.region_p, released.region_masks) == ("vector", 2, "nearest")


@pytest.mark.parametrize("method", [*variants(EMKD), *variants(EMKD_PAPER)], ids=lambda method: method.name)
def test_segmentation_loss_is_the_released_code_s_or_the_common_one(method, tiny_net, lesions):
    settings = method.settings(LAYERS)
    weights = (settings.segmentation_loss, settings.cross_entropy_weight, settings.dice_weight)
    image, target = lesions(0)
    (stage,) = method.stages(tiny_net(1), tiny_net(2), settings, input_shape=(3, 24, 24))
    value = stage.loss(image, target)["segmentation"]
    logits = stage.network(image)
    p = logits.softmax(dim=1).gather(1, target[:, None])
    foreground, lesion = logits.softmax(dim=1)[:, 1], (target == 1).float()
    dice = 1 - (2 * (foreground * lesion).sum() + 1) / (foreground.sum() + lesion.sum() + 1)
    if method.name.startswith("emkd-paper"):
        assert weights == ("ce+dice", 1.0, 1.0)
        torch.testing.assert_close(value, -p.log().mean() + dice)
    else:
        assert weights == ("focal+dice", 0.5, 0.5)
        torch.testing.assert_close(value, -((1 - p) ** 2 * p.log()).mean() / 2 + dice / 2)


def test_each_constant_reaches_its_loss():
    """What a term computes is the loss called with the constants of the settings, for both methods."""
    seeded = torch.Generator().manual_seed(0)
    features = [torch.randn(2, 3, 8, 8, generator=seeded) for _ in range(4)]
    student, teacher = tuple(features[:2]), tuple(features[2:])
    target = torch.randint(0, 3, (2, 8, 8), generator=seeded)
    for settings, options in [
        (
            EMKD.settings({"temperature": 2.0, "power": 2, "region_masks": "area"}),
            (
                {"temperature": 2.0, "direction": "forward"},
                {"power": 2, "norm": "l2sq", "resize": "bilinear"},
                {"reduce": "vector", "p": 2, "masks": "area"},
            ),
        ),
        (
            EMKD_PAPER.settings(),
            (
                {"temperature": 1.0, "direction": "reverse"},
                {"power": 2, "norm": "l1", "resize": "pool"},
                {"reduce": "mean", "p": 1, "masks": "nearest"},
            ),
        ),
    ]:
        terms = {term.name: term.loss for term in EMKD.build(settings, Given(nn.Identity())).terms}
        pmd, imd, rad = options
        one, other = student[0], teacher[0]
        assert terms["pmd"](one, other, target) == prediction_map(one, other, target, **pmd)
        assert terms["imd"](student, teacher, target) == importance_map(student, teacher, target, **imd)
        assert terms["rad"](student, teacher, target) == region_affinity(student, teacher, target, **rad)


def test_both_forms_of_importance_are_of_one_size():
    """The divisor of the l1 form is there so that 0.9 suits both; without it they would differ by about 200."""
    seeded = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(1, 16, 96, 96, generator=seeded) for _ in range(2))
    released = importance_map(student, teacher, power=4, norm="l2sq")
    printed = importance_map(student, teacher, power=2, norm="l1")
    assert 1 / 10 < printed / released < 10


@pytest.mark.parametrize("method", [*variants(EMKD), *variants(EMKD_PAPER)], ids=lambda method: method.name)
@pytest.mark.parametrize("classes", [2, 7])
def test_method_trains(method, classes, tiny_net, lesions):
    teacher, student = tiny_net(1, classes=classes, width=6), tiny_net(2, classes=classes)
    (stage,) = method.stages(teacher, student, method.settings(LAYERS), input_shape=(3, 24, 24))
    stage.begin_epoch(0, 1)
    optimiser = torch.optim.Adam(stage.trainable_parameters(), lr=0.01)
    first = last = None
    for step in range(4):
        image, target = lesions(0, classes=classes)
        target[step, :3] = 255
        values = stage.loss(image, target)
        optimiser.zero_grad()
        values["loss"].backward()
        optimiser.step()
        last = {name: value.item() for name, value in values.items()}
        first = first or last
        assert all(math.isfinite(value) for value in last.values())
    weights = {term.name: term.weight for term in stage.terms}
    assert all(first[name] > 0 for name in weights)
    total = first["segmentation"] + sum(weight * first[name] for name, weight in weights.items())
    assert first["loss"] == pytest.approx(total, rel=1e-5)
    assert last["loss"] < first["loss"]
    assert all(parameter.grad is None for parameter in teacher.parameters())
