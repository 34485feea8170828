"""A term that takes the labels' part of every step away is told of once; a usual training is left in peace."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from napari_kdseg.jobs import Cancelled, Done, Message, RunningJob, Step, run_inline, run_job
from napari_kdseg.training import DataConfig, DistillConfig, NetworkChoice, distill
from napari_kdseg.training.processes import make_fabric
from napari_kdseg.training.run.gradient_watch import INTERVAL, JUMP, LIMIT, GradientWatch

SMALL = NetworkChoice(
    architecture="unet/resnet18", options={"encoder_depth": 3, "decoder_channels": [16, 8, 8]}
)


@pytest.fixture
def config(make_tiles, tmp_path):
    """12 tiles: 10 to train on in two batches."""

    def make(**changes) -> DistillConfig:
        values = {
            "data": DataConfig(folder=make_tiles(12), input_size=32),
            "teacher": SMALL,
            "student": NetworkChoice(architecture="enet"),
            "teacher_epochs": 1,
            "epochs": 2,
            "batch_size": 5,
            "previews": False,
            "device": "cpu",
            "threads": torch.get_num_threads(),
            "output": tmp_path / "run",
        }
        return DistillConfig(**(values | changes))

    return make


def told(history) -> list[str]:
    return [event.text for event in history if isinstance(event, Message) and " pulls " in event.text]


def test_a_term_with_a_huge_weight_is_told_of_once_and_not_again_after_a_resume(config):
    heavy = config(method="kd+spkd", settings={"spkd_weight": 1e6})
    running = RunningJob()

    def stop(event):
        if isinstance(event, Step) and (event.stage, event.done) == ("student", 3):
            running.control.cancel()

    running.observe(stop)
    run_job(distill, heavy, running.emit, running.control)
    assert isinstance(running.end, Cancelled)
    (sentence,) = told(running.history)
    assert sentence.startswith("The term 'spkd' pulls ")
    assert (
        "times as hard at the student as the labels do (the norms of their gradients in step 1)" in sentence
    )
    assert "Lower its weight: settings.spkd_weight (" in sentence
    assert "now 1e+06)" in sentence
    resumed = run_inline(distill, heavy)
    assert isinstance(resumed.end, Done)
    assert sum(isinstance(event, Step) for event in resumed.history) == 1
    assert not told(resumed.history)


def test_a_training_as_it_should_be_is_told_nothing(config):
    running = run_inline(distill, config(method="kd+spkd"))
    assert isinstance(running.end, Done)
    assert not told(running.history)


class Bench:
    """Steps of a network of one weight, whose gradients are the factors given."""

    def __init__(self, config):
        network = nn.Linear(1, 1, bias=False)
        self.weight, self.seen, self.norms = network.weight, [], 0
        stage = SimpleNamespace(network=network, title="Student")
        self.watch = GradientWatch(stage, config, make_fabric(config), self.seen.append)
        self.number = 0

    def step(self, labels: float, length: float = 1.0, **terms: float) -> int:
        """Return how many parts went backward for the watch in this step."""
        self.number += 1
        parts = {
            "segmentation": labels,
            **{f"weighted/{name}": factor for name, factor in terms.items()},
        }
        graph = {name: _Counted.apply(self.weight, self, factor) for name, factor in parts.items()}
        before = self.norms
        self.watch.look(self.number, graph, {name: value.item() for name, value in graph.items()})
        self.watch.stepped(torch.tensor(length))
        return self.norms - before


class _Counted(torch.autograd.Function):
    """The factor itself; counts how often its gradient is asked for."""

    @staticmethod
    def forward(ctx, weight, bench, factor):
        ctx.bench, ctx.factor, ctx.shape = bench, factor, weight.shape
        return torch.tensor(factor)

    @staticmethod
    def backward(ctx, gradient):
        ctx.bench.norms += 1
        return (gradient * ctx.factor).expand(ctx.shape), None, None


@pytest.fixture
def bench(config):
    return Bench(config(method="alone"))


@pytest.mark.numeric
def test_the_limit_and_each_term_once(bench):
    bench.step(1.0, a=LIMIT, b=1.01 * LIMIT, c=0.5)
    assert [event.level for event in bench.seen] == ["warning"]
    (sentence,) = told(bench.seen)
    assert "'b' pulls 10,000 times" in sentence
    for _ in range(3 * INTERVAL):
        bench.step(1.0, a=LIMIT, b=1.01 * LIMIT, c=0.5)
    assert len(bench.seen) == 1
    for _ in range(3 * INTERVAL):
        bench.step(1.0, a=3 * LIMIT, b=1.01 * LIMIT, c=0.5)
    assert len(bench.seen) == 2
    assert "'a' pulls 30,000 times" in told(bench.seen)[1]


def test_seldom_enough_to_cost_little(bench):
    """Two backward passes in the first of 200 steps; with more terms, as many in as many more."""
    assert [bench.step(1.0, a=2.0) for _ in range(INTERVAL + 1)] == [2] + [0] * (INTERVAL - 1) + [2]
    assert [bench.step(1.0, a=2.0, b=0.0) for _ in range(INTERVAL)] == [0] * (INTERVAL - 1) + [3]


def test_a_term_that_begins_late_is_looked_at_when_it_begins(bench):
    for _ in range(3):
        bench.step(1.0, a=1.0, late=0.0)
    assert not bench.seen
    bench.step(1.0, a=1.0, late=2 * LIMIT)
    assert "'late' pulls 20,000 times" in told(bench.seen)[0]
    assert "in step 4" in told(bench.seen)[0]


@pytest.mark.numeric
def test_the_step_after_a_jump_of_the_whole_gradient_is_looked_at(bench):
    bench.step(1.0, a=1.0)
    assert bench.step(1.0, a=1.0, length=0.9 * JUMP) == 0
    assert bench.step(1.0, a=3 * LIMIT, length=1.1 * JUMP) == 0
    assert bench.step(1.0, a=3 * LIMIT, length=1.1 * JUMP) == 2
    assert "in step 4" in told(bench.seen)[0]


@pytest.mark.numeric
def test_gradients_that_overflow_are_looked_at_again_and_labels_without_one_prove_nothing(bench):
    assert bench.step(1.0, a=math.inf) == 2
    assert bench.step(0.0, a=1.0) == 2
    assert bench.step(0.0, a=1.0) == 0
    assert not bench.seen


def test_when_all_were_told_of_there_is_nothing_to_look_for(bench):
    bench.watch.told = ["a"]
    assert sum(bench.step(1.0, a=2 * LIMIT) for _ in range(INTERVAL + 1)) == 0
    assert not bench.seen
