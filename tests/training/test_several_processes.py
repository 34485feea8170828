"""Two processes that share each batch compute what one computes: networks, losses, queues, critics; one is killed."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from napari_kdseg.jobs import Done, Failed, run_inline
from napari_kdseg.networks import load
from napari_kdseg.training import DataConfig, DistillConfig, NetworkChoice, OptimiserConfig, distill

SCRIPT = Path(__file__).with_name("together.py")
SMALL = NetworkChoice(
    architecture="unet/resnet18", options={"encoder_depth": 3, "decoder_channels": [16, 8, 8]}
)
FIRST, MORE = ("kd", "plc-kd"), ("coco", "spkd")
"""The second pair takes a run of its own, which is left to ``pytest`` alone."""
TIMEOUT = 500
"""Seconds: only ends a test that hangs. A run takes 10 to 30 on a machine that does nothing else."""

METHODS = {
    "kd": {"kd_weight": 1.0},
    "plc-kd": {"assistant_epochs_factor": 1.0, "queue_length": 64, "pixels_per_image": 8},
    "coco": {"critic_attention": False, "paraphraser_epochs_factor": 0.5, "critic_epochs_factor": 0.5},
    "spkd": {},
}

pytestmark = [
    pytest.mark.timeout(TIMEOUT + 100),
    pytest.mark.skipif(
        not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
        reason="this torch cannot connect processes",
    ),
]


def torchrun(count: int, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the script as ``count`` processes, as a user would."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    return subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )


def steps(folder: Path) -> list[tuple[str, dict[str, float]]]:
    """Stage and figures of each step."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(record["stage"], record["values"]) for record in records if record["kind"] == "step"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder / "checkpoints" / "student-last.safetensors").module.state_dict()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """12 tiles: 10 to train on in 2 batches of 5, so that the two shares differ; part of most masks is ignored."""
    folder = tmp_path_factory.mktemp("together")
    rows, columns = np.mgrid[:32, :32]
    for kind in ("images", "masks"):
        (folder / "tiles" / kind).mkdir(parents=True)
    for index in range(12):
        random = np.random.default_rng(index)
        y, x, radius = random.uniform(10, 22), random.uniform(10, 22), random.uniform(5, 10)
        disc = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        image = np.where(disc[..., None], (110, 60, 150), (225, 170, 200)) + random.normal(0, 12, (32, 32, 3))
        mask = disc.astype(np.uint8)
        mask[:, : 4 * (index % 6)] = 255
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(
            folder / "tiles" / "images" / f"tile{index:02d}.png"
        )
        Image.fromarray(mask).save(folder / "tiles" / "masks" / f"tile{index:02d}.png")
    return folder


def configured(place: Path, name: str, method: str) -> DistillConfig:
    return DistillConfig(
        data=DataConfig(folder=place / "tiles", input_size=32),
        teacher=SMALL,
        student=SMALL,
        method=method,
        settings=METHODS.get(method, {}),
        teacher_epochs=1,
        epochs=2,
        batch_size=5,
        optimiser=OptimiserConfig(name="sgd", learning_rate=0.01),
        output=place / name,
        threads=torch.get_num_threads(),
        device="cpu",
        previews=False,
    )


def written(place: Path, methods: tuple[str, ...]) -> list[Path]:
    files = [place / f"{method}.json" for method in methods]
    for method, file in zip(methods, files, strict=True):
        configured(place, f"two-{method}", method).save(file)
    return files


@pytest.fixture(scope="module")
def two(place) -> Path:
    """Methods run by two processes, which stop if they do not agree to the last bit after an epoch."""
    files = written(place, FIRST)
    configured(place, "stopped", "kd").save(place / "stopped.json")
    ran = torchrun(2, SCRIPT, "all", place / "report.pt", place / "stopped.json", *files)
    assert ran.returncode == 0, ran.stderr
    return place


@pytest.fixture(scope="module")
def two_more(place) -> Path:
    """The other methods, likewise."""
    ran = torchrun(2, SCRIPT, "several", *written(place, MORE))
    assert ran.returncode == 0, ran.stderr
    return place


def test_networks_that_are_divided_compute_what_they_compute_whole(two):
    for length, (alone, together) in torch.load(two / "report.pt").items():
        assert alone.keys() == together.keys()
        for name, value in alone.items():
            torch.testing.assert_close(
                together[name], value, msg=lambda m, what=f"{length} images, {name}": f"{what}: {m}"
            )


@pytest.mark.parametrize("method", FIRST)
def test_two_processes_have_the_losses_of_one(two, method):
    assert_same_losses(two, method)


@pytest.mark.exhaustive
@pytest.mark.parametrize("method", MORE)
def test_two_processes_have_the_losses_of_one_with_critics_and_relations(two_more, method):
    assert_same_losses(two_more, method)


def assert_same_losses(two: Path, method: str) -> None:
    """Step by step, within what rounding makes of other orders of adding up.

    Sums over a batch are rounded otherwise where they are made of two parts, by about 1e-7 of their size; batch
    normalisation and a few steps of AdamW, which divides small gradients by their size, make more of it, and a critic,
    whose scores are near zero here, steps by an Adam of its own. An error of the division (a mean of means, statistics
    of a share, a draw out of step) shows in the second digit at once.
    """
    running = run_inline(distill, configured(two, f"one-{method}", method))
    assert isinstance(running.end, Done), running.end
    alone, together = (steps(two / f"{who}-{method}") for who in ("one", "two"))
    assert [stage for stage, _ in alone] == [stage for stage, _ in together]
    for number, ((stage, expected), (_, found)) in enumerate(zip(alone, together, strict=True), start=1):
        for name in expected.keys() - {"images_per_s"}:
            relative, absolute = (5e-3, 5e-4) if name.startswith("adversarial") else (1e-3, 1e-4)
            close = math.isclose(expected[name], found[name], rel_tol=relative, abs_tol=absolute)
            assert close, f"{stage}, step {number}, {name}: {expected[name]} alone, {found[name]} together"


def test_a_killed_process_and_a_resumed_run(two):
    """Killed in the student's second epoch, the other ends with a sentence; resumed, it is as if nothing had been."""
    config = configured(two, "killed", "kd")
    config.save(two / "killed.json")
    killed = torchrun(2, SCRIPT, "kill", 5, "distill", two / "killed.json")
    assert killed.returncode != 0
    assert "Process 1 of 2: Another process of this run has ended" in killed.stderr
    assert not (config.output / "report").exists()

    command = [sys.executable, "-m", "napari_kdseg.cli", "distill", two / "killed.json", "--processes", "2"]
    resumed = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert resumed.returncode == 0, resumed.stderr
    assert "Resumed: student, epoch 2." in resumed.stderr
    assert resumed.stdout.count("student: val_dice") == 1, "only the first process says what came out"
    assert_same_run(two / "two-kd", config.output)


def test_what_one_process_is_asked_all_do(two):
    """The second alone was paused for a while, then stopped in the middle of an epoch; all went on from there."""
    assert_same_run(two / "two-kd", two / "stopped")


def assert_same_run(undisturbed: Path, folder: Path) -> None:
    before, after = weights(undisturbed), weights(folder)
    assert all(torch.equal(before[name], after[name]) for name in before)
    curves = [
        [
            (stage, {name: value for name, value in values.items() if name != "images_per_s"})
            for stage, values in run
        ]
        for run in (steps(undisturbed), steps(folder))
    ]
    assert curves[0] == curves[1]


def test_a_batch_that_cannot_be_shared_is_refused_in_plain_words(place, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "6")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    config = configured(place, "refused", "kd")
    running = run_inline(distill, config)
    assert isinstance(running.end, Failed)
    assert running.end.message.startswith("A batch of 5 tiles cannot be shared by 6 processes.")
    assert not config.output.exists()
