"""A run folder: for one job at a time, never half written, and cut back to its checkpoint on resume."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import socket
import subprocess
import sys

import pytest
import torch

from napari_kdseg.errors import OutputError
from napari_kdseg.jobs import Step, Validated
from napari_kdseg.training import DataConfig, DistillConfig, RunFolder, read_history, resume_config


@pytest.fixture
def config(tmp_path):
    return DistillConfig(data=DataConfig(folder=tmp_path / "tiles"), output=tmp_path / "run")


def test_written_and_read_again(config):
    steps = [Step("student", i, 3, {"loss": 1.0 / i}) for i in (1, 2, 3)]
    end = Validated("student", 1, 1, {"val_dice": 0.5, "val_iou": math.nan})
    with RunFolder(config.output, config) as run:
        for position, event in enumerate([*steps, end]):
            run.record(event, position)
        assert run.save_state({"epoch": 1}).is_file()
    history = read_history(config.output)
    assert history[:3] == steps
    assert history[3].metrics["val_dice"] == 0.5
    assert math.isnan(history[3].metrics["val_iou"])
    assert list(config.output.glob("events.out.tfevents*"))
    assert resume_config(config.output).differences(config) == []
    for line in (config.output / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)  # NaN is no JSON


def test_half_a_line_is_left_out(config):
    with RunFolder(config.output, config) as run:
        run.record(Step("student", 1, 3, {"loss": 1.0}), 1)
    with (config.output / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "stage": "stud')
    assert read_history(config.output) == [Step("student", 1, 3, {"loss": 1.0})]
    assert read_history(config.output / "nowhere") == []


def test_rewound_to_the_checkpoint(config):
    with RunFolder(config.output, config) as run:
        run.record(Step("student", 1, 3, {"loss": 1.0}), 1)
        size = run.metrics_size()
        run.record(Step("student", 2, 3, {"loss": 2.0}), 2)
    with RunFolder(config.output, config) as run:
        run.rewind(size)
        run.record(Step("student", 2, 3, {"loss": 3.0}), 2)
        assert [event.values["loss"] for event in run.history()] == [1.0, 3.0]


def test_folders_that_hold_something_else(config, tmp_path):
    config.output.mkdir()
    (config.output / "thesis.docx").write_text("x")
    with pytest.raises(OutputError, match="holds other files"), RunFolder(config.output, config):
        pass
    assert sorted(p.name for p in config.output.iterdir()) == ["thesis.docx"]
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(OutputError, match="is a file"), RunFolder(file, config):
        pass


def test_a_run_of_other_settings_is_refused(config):
    with RunFolder(config.output, config) as run:
        run.record(Step("student", 1, 3, {"loss": 1.0}), 1)
    other = config.model_copy(update={"epochs": 99, "batch_size": 3})
    with (
        pytest.raises(OutputError, match=r"other settings \(batch_size, epochs\)"),
        RunFolder(config.output, other),
    ):
        pass
    with RunFolder(config.output, config):
        pass


def test_settings_may_change_until_the_first_step(config):
    with RunFolder(config.output, config):
        pass
    other = config.model_copy(update={"epochs": 99})
    with RunFolder(config.output, other):
        pass
    assert resume_config(config.output).epochs == 99


def test_two_jobs_cannot_write_to_one_run(config):
    with RunFolder(config.output, config):
        with pytest.raises(OutputError, match="Another job"), RunFolder(config.output, config):
            pass
        assert (config.output / ".lock").exists()
    assert not (config.output / ".lock").exists()


HOLDER = """
import sys
from pathlib import Path

from napari_kdseg.training.lock import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_named_and_its_lock_is_free_once_it_is_dead(config):
    config.output.mkdir()
    lock = config.output / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        named = f"process {other.pid} on {re.escape(socket.gethostname())}"
        with pytest.raises(OutputError, match=named), RunFolder(config.output, config):
            pass
        other.kill()
    assert lock.exists()
    with RunFolder(config.output, config):
        pass
    assert not lock.exists()


@pytest.mark.parametrize(
    "left", ["", json.dumps({"pid": 1, "host": "another-computer", "started": 1.0}), "process 1 on elsewhere"]
)
def test_a_file_that_is_left_locks_nothing(config, left):
    """Whoever wrote it, this version or an older one, on this machine or another, is gone."""
    config.output.mkdir()
    (config.output / ".lock").write_text(left)
    with RunFolder(config.output, config):
        pass


def test_a_failed_checkpoint_leaves_the_last_one(config, monkeypatch):
    with RunFolder(config.output, config) as run:
        run.save_state({"epoch": 1, "weight": torch.ones(3)})

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OutputError, match="disk is full"):
                run.save_state({"epoch": 2})
        assert run.load_state()["epoch"] == 1
        assert [p.name for p in run.checkpoints.iterdir()] == ["state.pt"]


def test_a_damaged_state_is_explained(config):
    with RunFolder(config.output, config) as run:
        assert run.load_state() is None
        run.save_state({"epoch": 1})
        (run.path / "checkpoints" / "state.pt").write_bytes(b"half a file")
        with pytest.raises(OutputError, match="cannot be resumed"):
            run.load_state()


@pytest.mark.skipif(
    os.name != "posix" or not os.path.isdir("/proc/self"), reason="needs a place nobody can write to"
)
def test_a_place_that_cannot_be_written(config):
    with pytest.raises(OutputError, match="cannot be written"):
        RunFolder(config.output.__class__("/proc/self/run"), config).__enter__()
