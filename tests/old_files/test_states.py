"""What stages keep for resuming has the form of then: queues, critics, generators, projections, means of classes.

Runs of each method would not fit here, so their states are described in ``states.json`` and made up from it.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import torch
from torch import Tensor

from napari_kdseg.distillation import get_method, method_names
from napari_kdseg.networks import create


def network(choice: dict[str, Any]) -> torch.nn.Module:
    torch.manual_seed(0)
    return create(choice["architecture"], 3, 3, **choice["options"])


class MadeUp:
    """Makes a state of the form that was written down, each tensor of numbers full of one that no other has."""

    def __init__(self) -> None:
        self.count = itertools.count(1)

    def __call__(self, form: Any) -> Any:
        if isinstance(form, str) and form.startswith("tensor "):
            return self.tensor(*form.split()[1:])
        if isinstance(form, dict):
            ((kind, items),) = form.items()
            if kind == "dict":
                return {key: self(item) for key, item in items}
            return {"list": list, "tuple": tuple}[kind](self(item) for item in items)
        return form

    def tensor(self, dtype: str, *shape: str) -> Tensor:
        size = tuple(map(int, shape))
        if dtype == "uint8" and size == torch.get_rng_state().shape:
            return torch.Generator().manual_seed(next(self.count)).get_state()
        value = next(self.count) / 1024 if dtype.startswith("float") else 1
        return torch.full(size, value, dtype=getattr(torch, dtype))


def numbers(state: Any) -> list[tuple]:
    """Shape and value of each tensor of numbers in a state, under whatever names they are there."""
    if isinstance(state, Tensor):
        if not state.is_floating_point():
            return []
        assert (state == state.flatten()[0]).all()
        return [(tuple(state.shape), state.flatten()[0].item())]
    items = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sorted(pair for item in items for pair in numbers(item))


def known(written) -> dict[str, Any]:
    return json.loads((written / "expected" / "states.json").read_text())


METHODS = (
    "kd", "plc-kd", "plc-kd-paper", "coco", "fitnet", "mimic", "skd", "cirkd", "cirkd:memory-pixel", "mgd",
    "fitnet+mimic", "plc-kd+plc-kd@2",
)  # fmt: skip


def test_all_that_was_written_down_is_tried(written):
    assert set(known(written)["stages"]) == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_the_state_of_each_stage(name, written):
    told = known(written)
    method = get_method(name)
    teachers = [network(told["teacher"]), network(told["teacher"])]
    stages = method.stages(teachers, network(told["student"]), method.settings(), input_shape=(3, 32, 32))
    assert [stage.name for stage in stages] == [stage["name"] for stage in told["stages"][name]], (
        "files of a run are called so"
    )
    for stage, old in zip(stages, told["stages"][name], strict=True):
        state = MadeUp()(old["state"])
        stage.load_state_dict(state)
        assert numbers(stage.state_dict()) == numbers(state), stage.name
        if "network" in old:
            weights = MadeUp()(old["network"])
            stage.network.load_state_dict(weights)
            assert numbers(stage.network.state_dict()) == numbers(weights), stage.name


def test_every_constant_of_every_method_is_still_understood(written):
    """A run folder names all constants of its method, also those at their defaults."""
    told = json.loads((written / "expected" / "methods.json").read_text())
    assert {*told["names"]} <= {*method_names()}
    for name, constants in told["constants"].items():
        read = get_method(name).settings(constants).model_dump(mode="json")
        assert {key: read[key] for key in constants} == constants, name
