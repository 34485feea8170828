"""Optimisers, schedules, the average of the weights and deterministic mode, each against a direct computation."""

from __future__ import annotations

import contextlib
import math
import os

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from napari_kdseg.training import OptimiserConfig
from napari_kdseg.training.run.ema import WeightAverage
from napari_kdseg.training.run.optimisers import (
    CUBLAS,
    deterministic,
    make_optimiser,
    rate_factor,
    warm_up_steps,
)

pytestmark = pytest.mark.numeric

# -- optimisers --------------------------------------------------------------------------------------


def stepped(config: OptimiserConfig, steps: int = 5, rate: float = 0.1) -> float:
    """One weight, starting at 2, whose loss is half its square: the gradient is the weight."""
    weight = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    optimiser = make_optimiser([weight], config, rate)
    for _ in range(steps):
        optimiser.zero_grad()
        (weight.square() / 2).backward()
        optimiser.step()
    return float(weight.detach())


def by_hand(config: OptimiserConfig, steps: int = 5, rate: float = 0.1) -> float:
    weight, moment, square = 2.0, 0.0, 0.0
    for step in range(1, steps + 1):
        gradient = weight
        if config.name == "adamw":
            weight -= rate * config.weight_decay * weight
        else:
            gradient += config.weight_decay * weight
        if config.name == "sgd":
            moment = config.momentum * moment + gradient
            weight -= rate * (gradient + config.momentum * moment if config.nesterov else moment)
            continue
        moment = 0.9 * moment + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        weight -= rate * (moment / (1 - 0.9**step)) / (math.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return weight


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "adamw", "weight_decay": 0.3},
        {"name": "adam", "weight_decay": 0.3},
        {"name": "sgd", "weight_decay": 0.3},
        {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0},
        {"name": "sgd", "momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
    ],
)
def test_each_optimiser_steps_as_written(fields):
    config = OptimiserConfig(**fields)
    assert stepped(config) == pytest.approx(by_hand(config), rel=1e-12)


def test_nesterov_needs_momentum():
    with pytest.raises(ValidationError, match="momentum above 0"):
        OptimiserConfig(name="sgd", nesterov=True, momentum=0.0)


# -- schedules ---------------------------------------------------------------------------------------


def curve(total: int = 20, **fields) -> list[float]:
    config = OptimiserConfig(**fields)
    return [rate_factor(config, done, total) for done in range(total)]


def test_schedules_as_written():
    done = np.arange(20)
    np.testing.assert_allclose(curve(), (1 - done / 20) ** 0.9, rtol=1e-14, equal_nan=False)
    np.testing.assert_allclose(curve(poly_power=2.0), (1 - done / 20) ** 2, equal_nan=False)
    np.testing.assert_allclose(curve(schedule="cosine"), (1 + np.cos(np.pi * done / 20)) / 2, equal_nan=False)
    assert curve(schedule="constant") == [1.0] * 20


@pytest.mark.parametrize("schedule", ["poly", "cosine", "constant"])
@pytest.mark.parametrize("warm_up", [0, 4, 0.2, 20, 500])
def test_warm_up_rises_to_one_and_the_rate_is_never_zero(schedule, warm_up):
    factors = curve(schedule=schedule, warm_up=warm_up)
    warm = {0: 0, 4: 4, 0.2: 4, 20: 20, 500: 20}[warm_up]
    assert warm_up_steps(OptimiserConfig(warm_up=warm_up), 20) == warm
    np.testing.assert_allclose(factors[:warm], (np.arange(warm) + 1) / max(warm, 1), equal_nan=False)
    assert 0 < min(factors) <= max(factors) == 1.0
    assert factors[warm:] == sorted(factors[warm:], reverse=True)
    if warm < 20:
        assert factors[warm] == 1.0


# -- average of the weights --------------------------------------------------------------------------


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))


def some_steps(network: nn.Module, average: WeightAverage, count: int) -> list[dict[str, torch.Tensor]]:
    seen = []
    for _ in range(count):
        network(torch.randn(4, 2, 5, 5)).sum().backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += torch.randn_like(parameter)
        average.update(network)
        seen.append({key: tensor.clone() for key, tensor in network.state_dict().items()})
    return seen


@pytest.mark.parametrize("decay", [0.25, 0.999])
def test_the_average_as_written(decay):
    network = small_network()
    expected = {key: tensor.clone().double() for key, tensor in network.state_dict().items()}
    average = WeightAverage(network, decay)
    for n, weights in enumerate(some_steps(network, average, 6), start=1):
        stays = min(decay, (1 + n) / (10 + n))
        for key, tensor in weights.items():
            expected[key] = stays * expected[key] + (1 - stays) * tensor.double()
    for key, tensor in average.weights.items():
        if tensor.is_floating_point():
            np.testing.assert_allclose(
                tensor.numpy(), expected[key].numpy(), rtol=1e-5, atol=1e-6, equal_nan=False
            )
    assert int(average.weights["1.num_batches_tracked"]) == 6


def test_the_average_is_lent_and_taken_back_to_the_last_bit():
    network = small_network()
    average = WeightAverage(network, 0.5)
    own = some_steps(network, average, 3)[-1]
    with contextlib.suppress(KeyError), average.applied(network):
        assert all(torch.equal(tensor, average.weights[key]) for key, tensor in network.state_dict().items())
        assert not torch.equal(network.state_dict()["0.weight"], own["0.weight"])
        raise KeyError
    assert all(torch.equal(tensor, own[key]) for key, tensor in network.state_dict().items())


def test_the_average_goes_on_from_its_state():
    network = small_network()
    average, other = WeightAverage(network, 0.9), WeightAverage(network, 0.9)
    some_steps(network, average, 3)
    state = average.state_dict()
    other.load_state_dict({"updates": state["updates"], "weights": dict(state["weights"])})
    some_steps(network, average, 1)
    other.update(network)
    assert other.updates == 4
    assert all(torch.equal(other.weights[key], tensor) for key, tensor in average.weights.items())


# -- deterministic mode ------------------------------------------------------------------------------


def test_deterministic_mode_is_put_back(monkeypatch):
    monkeypatch.delenv(CUBLAS, raising=False)
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    with contextlib.suppress(KeyError), deterministic(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert (cudnn.deterministic, cudnn.benchmark) == (True, False)
        assert os.environ[CUBLAS] == ":4096:8"
        raise KeyError
    assert before == (torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark)
    assert CUBLAS not in os.environ
    with deterministic(False):
        assert before[0] == torch.are_deterministic_algorithms_enabled()
    monkeypatch.setenv(CUBLAS, ":16:8")
    with deterministic(True):
        assert os.environ[CUBLAS] == ":16:8", "what a person chose is kept"
    assert os.environ[CUBLAS] == ":16:8"
