"""What networks cost: figures that agree with each other, kept for the next time, and two beside each other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_kdseg.inference import CostConfig, Subject, measure_costs
from napari_kdseg.inference.measuring.cost_figures import STANDARD_MPP, Cost, conditions, table
from napari_kdseg.jobs import Done, Message, run_inline
from napari_kdseg.networks import count_parameters, create
from napari_kdseg.networks.anatomy.cost import multiply_adds, peak_bytes
from napari_kdseg.networks.checkpoints.formats import SUFFIXES

FIGURES = {
    "parameters": 2_000_000, "multiply_adds": 3_000_000_000, "side": 512, "latency_ms": 20.0, "mpx_per_s": 4.0,
    "images_per_s": 15.0, "batch_size": 1, "peak_bytes": 64_000_000, "arithmetic": "float32", "machine": "a machine",
}  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KDSEG_HOME", str(tmp_path / "home"))


def measure(**networks):
    subjects = {name: Subject(network=str(network)) for name, network in networks.items()}
    job = run_inline(measure_costs, CostConfig(networks=subjects, side=64, classes=3))
    assert isinstance(job.end, Done), job.end.details
    return job.end.result, [event.text for event in job.history if isinstance(event, Message)]


def test_a_name_and_a_checkpoint_of_one_network_cost_the_same_and_are_measured_once(checkpoint):
    result, said = measure(by_name="enet", by_file=checkpoint)
    one, other = result.costs["by_name"], result.costs["by_file"]
    module = create("enet", 3, 3)
    assert one.parameters == count_parameters(module)
    assert one.multiply_adds == multiply_adds(module, 64, 64)
    assert one.images_per_s == pytest.approx(one.mpx_per_s * 1e6 / 64**2)
    assert one.model_copy(update={"mpp": 0.5}) == other
    assert len(said) == 1
    again, said = measure(by_file=checkpoint)
    assert again.costs["by_file"] == other
    assert not said


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_not_there_is_no_name_of_a_network(suffix):
    result, _ = measure(lost=f"nowhere/x{suffix.upper()}")
    assert "There is no checkpoint at nowhere" in result.problems["lost"]


def test_what_cannot_be_measured_does_not_stop_the_others():
    result, _ = measure(good="enet", bad="unet/resnett18")
    assert set(result.costs) == {"good"}
    assert "Did you mean" in result.problems["bad"]


def test_memory_is_that_of_tensors_that_live_at_the_same_time():
    image = torch.zeros(1, 1, 256, 256)
    size = image.numel() * 4
    chain = nn.Sequential(*(nn.Softplus() for _ in range(5))).eval()
    assert peak_bytes(chain, image) == 2 * size  # input and output of a layer, the image itself aside
    wide = nn.Sequential(nn.Conv2d(1, 8, 1), nn.Conv2d(8, 1, 1)).eval()
    assert 9 * size <= peak_bytes(wide, image) <= 18 * size


def test_seconds_follow_area_and_scale():
    cost = Cost(**FIGURES)
    assert cost.seconds(100.0) == pytest.approx(100e6 / STANDARD_MPP**2 / 4e6)
    assert cost.seconds(100.0, mpp=1.0) == pytest.approx(25.0)
    assert cost.model_copy(update={"mpp": 1.0}).seconds(100.0) == pytest.approx(25.0)


def test_two_networks_beside_each_other_have_a_ratio():
    teacher = Cost(**FIGURES)
    student = Cost(**FIGURES | {"parameters": 500_000, "multiply_adds": None, "mpx_per_s": 16.0})
    head, *rows = table({"teacher": teacher, "student": student})
    assert head == ("", "teacher", "student", "ratio")
    figures = {row[0]: row[1:] for row in rows}
    assert figures["parameters"] == ("2.00 M", "0.50 M", "4")
    assert figures["multiply-adds (512 px)"] == ("3.00 G", "?", "?")
    assert figures["throughput"] == ("4.00 Mpx/s", "16.00 Mpx/s", "0.25")
    assert figures["100 mm²"] == ("100 s", "25 s", "4")
    assert table({"only": teacher})[0] == ("", "only")
    assert "a machine" in conditions([teacher, student])
