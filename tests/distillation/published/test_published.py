"""Each loss against what the published implementation of its method gives: values and gradients, in float64.

The tables beside this file hold, for inputs by recipe, the value that the code named under ``sources`` gives, and the
norm of its gradient with respect to the student's input. That code was run in float64; where it turns its input into
float32, that was left out. The tables hold values only, no code of others. A row's

``method``, ``term``, ``settings``
    say what of ours is compared: a term of a method or variant, its constants, or ``segmentation``, its L_seg;
``factor``
    is what the published loss is of ours, where the two differ by a constant, and ``because`` says why;
``weight``
    is the published weight, where the method or variant has that of its source;
``tolerance``, ``floor``
    are relative and absolute, 1e-9 and 0 if not given; ``because`` says what there is beyond rounding.

What stands under a source holds for all of its rows.

``naive.yaml`` lists what has no published code, with the reason and the test that holds it against a loop.

Inputs are the same numbers on every processor, as uniform draws and sums need no transcendental function. One CPU
generator with a row's seed draws, in float64 and in this order: the student's features, the teacher's, the labels (a
class a pixel, then which pixels are ignored), and the weights of layers that are learned. Where a loss itself draws, it
has a generator of the same seed.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from napari_kdseg.distillation import LOGITS, METHODS, StudentStage, Term, get_method
from napari_kdseg.distillation import losses as room
from napari_kdseg.distillation.distiller import Given

HERE = Path(__file__).parent
TABLES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(HERE.glob("*.yaml"))}
NAIVE = TABLES.pop("naive")
ROWS = [
    pytest.param(table["sources"][row["source"]] | row, id=f"{name}-{number}-{row['method']}-{row['term']}")
    for name, table in TABLES.items()
    for number, row in enumerate(table["rows"])
]
NO_LOSS = {"__init__", "common", "pairs"}
IGNORED = 255
Row = dict[str, Any]
Features = Tensor | tuple[Tensor, ...]


def bell(shape: list[int], generator: torch.Generator, scale: float = 1.0) -> Tensor:
    """Sum of four uniform draws of [-1, 1), times ``scale``: bell-shaped, with a standard deviation of 1.15."""
    return scale * (2 * torch.rand(4, *shape, generator=generator, dtype=torch.float64).sum(dim=0) - 4)


def features(shape: list[Any], row: Row, generator: torch.Generator) -> Features:
    """One map, or several where ``shape`` lists shapes; negative values are 0 with ``relu: true``."""
    if isinstance(shape[0], list):
        return tuple(features(one, row, generator) for one in shape)
    drawn = bell(shape, generator, row.get("scale", 1.0))
    return drawn.clamp(min=0) if row.get("relu") else drawn


def labels(images: int, row: Row, generator: torch.Generator) -> Tensor | None:
    """``labels: {classes, size}`` at random, ``ignored`` of them as 255; ``whole: true`` shows one class an image."""
    wanted = row.get("labels")
    if wanted is None:
        return None
    shape = [images, *wanted["size"]]
    if wanted.get("whole"):
        return (torch.arange(images) % wanted["classes"])[:, None, None].expand(shape).clone()
    drawn = torch.randint(wanted["classes"], shape, generator=generator)
    ignored = torch.rand(shape, generator=generator, dtype=torch.float64) < wanted.get("ignored", 0.0)
    return drawn.masked_fill(ignored, IGNORED)


def inputs_of(row: Row) -> tuple[Features, Features, Tensor | None, torch.Generator]:
    """Student, teacher and labels of a row, and the generator that goes on to draw weights."""
    generator = torch.Generator().manual_seed(row["seed"])
    student = features(row["student"], row, generator)
    teacher = features(row["teacher"], row, generator) if "teacher" in row else ()
    return student, teacher, labels(len(as_tuple(student)[0]), row, generator), generator


def fill_weights(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Give every parameter bell-shaped values of scale 0.3, in the order in which the module lists them."""
    for parameter in module.double().parameters():
        parameter.data = bell(list(parameter.shape), generator, 0.3)
    return module


def as_tuple(features: Features) -> tuple[Tensor, ...]:
    return features if isinstance(features, tuple) else (features,)


def term_of(row: Row) -> Term:
    method = get_method(row["method"])
    recipe = method.build(method.settings(row.get("settings", {})), Given(nn.Identity()))
    return next(term for term in recipe.terms if term.name == row["term"])


def ours(row: Row) -> tuple[float, float]:
    """The value of our loss for a row, and the norm of its gradient with respect to the student's input."""
    student, teacher, target, generator = inputs_of(row)
    leaves = [feature.requires_grad_() for feature in as_tuple(student)]
    if row["term"] == "segmentation":
        settings = get_method(row["method"]).settings(row.get("settings", {}))
        value = StudentStage(nn.Identity(), settings).segmentation(student, target)
    else:
        value = value_of_term(row, student, teacher, target, generator)
    gradients = torch.autograd.grad(value, leaves)
    return value.item(), torch.cat([gradient.flatten() for gradient in gradients]).norm().item()


def value_of_term(
    row: Row, student: Any, teacher: Any, target: Tensor | None, generator: torch.Generator
) -> Tensor:
    """Call a term as the student's stage does: through its connector, or the module that learns it."""
    term = term_of(row)
    if LOGITS in term.teacher_taps[1:]:  # read for the number of classes alone
        teacher = (teacher, torch.zeros(len(teacher), row["labels"]["classes"], 1, 1))
    shapes = [[feature.shape for feature in as_tuple(side)] for side in (student, teacher)]
    if term.connector:
        student = fill_weights(term.connector(*shapes), generator)(*as_tuple(student))
    if term.learned:
        own = torch.Generator()
        learned = fill_weights(term.learned(*shapes, own), generator)
        own.manual_seed(row["seed"])
        return learned(student, teacher, target, ignore_index=IGNORED)
    return term.loss(student, teacher, target, ignore_index=IGNORED)


def test_recipes_draw_what_they_always_drew():
    """If this fails, PyTorch's generator has changed, and so has every input."""
    drawn = bell([3], torch.Generator().manual_seed(0)).tolist()
    assert drawn == pytest.approx([0.7152855065308286, 0.31364091559519114, 0.017342562638086534], abs=1e-14)


@pytest.mark.parametrize("row", ROWS)
def test_equals_the_published_implementation(row):
    value, gradient = ours(row)
    factor = row.get("factor", 1.0)
    within = {"rel": row.get("tolerance", 1e-9), "abs": row.get("floor", 0.0)}
    assert factor * value == pytest.approx(row["value"], **within)
    assert factor * gradient == pytest.approx(row["gradient"], **within)
    if "weight" in row:
        assert term_of(row).weight == row["weight"]


@pytest.mark.parametrize("row", ROWS)
def test_sources_and_what_differs_are_said(row):
    assert "/" in row["code"]
    assert len(row["commit"]) == 12
    assert "because" in row or not row.keys() & {"factor", "tolerance", "floor"}


def file_of(term: Term) -> str:
    """Name of the file in ``losses/`` that a term's loss is in."""
    loss: Any = term.learned or term.loss
    while isinstance(loss, partial):
        loss = loss.args[0] if loss.args and callable(loss.args[0]) else loss.func
    return loss.__module__.rpartition(".")[2]


def test_no_method_and_no_loss_is_forgotten():
    rows = [row.values[0] for row in ROWS]
    methods = {row["method"].partition(":")[0] for row in rows}
    files = {"segmentation" if row["term"] == "segmentation" else file_of(term_of(row)) for row in rows}
    wanted = {path.stem for path in Path(room.__path__[0]).glob("*.py")} - NO_LOSS
    assert methods | set(NAIVE["methods"]) == set(METHODS)
    assert files | set(NAIVE["losses"]) == wanted
    assert not files & set(NAIVE["losses"])
    assert not methods & set(NAIVE["methods"])


def test_every_variant_that_names_a_source_is_held_against_it():
    rows = {row.values[0]["method"] for row in ROWS}
    for method in METHODS.values():
        for preset in method.presets:
            assert preset not in ("authors", "cirkd") or f"{method.name}:{preset}" in rows


@pytest.mark.parametrize("kind", ["methods", "losses"])
def test_what_has_no_published_code_is_held_against_a_loop(kind):
    for name, entry in NAIVE[kind].items():
        assert len(entry["because"]) > 10, name
        for test in entry["tests"]:
            file, _, function = test.partition("::")
            assert f"def {function}(" in (HERE.parent / file).read_text(), test
