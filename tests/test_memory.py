"""Large blocks stay in memory between jobs, and go back to the system a while after the last: in our own processes."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from napari_kdseg import memory

BLOCK = 200 * 2**20

PROGRAM = """
import sys
from pathlib import Path

import numpy as np
import psutil

from napari_kdseg import memory
from napari_kdseg.cli.running import run
from napari_kdseg.inference import PredictConfig, predict
from napari_kdseg.jobs import Done, start_in_process, start_in_thread
from napari_kdseg.networks import NetworkSpec, create, save


def stays():
    '''Whether a block that was freed stays with this process: glibc left alone gives 200 MB back at once.'''
    memory.give_back()
    before = psutil.Process().memory_info().rss
    np.ones(200 * 2**20, np.uint8)
    return psutil.Process().memory_info().rss > before + 100 * 2**20


def predict_and_see(config, emit, control):
    predict(config, emit, control)
    return stays()


def result_of(running):
    running.join()
    assert isinstance(running.end, Done), running.end
    return running.end.result


if __name__ == "__main__":
    spec = NetworkSpec(architecture="enet", classes=("background", "gland"), mpp=1.0)
    network = save(Path("student.safetensors"), create("enet", classes=2), spec)
    config = PredictConfig(
        slide="synthetic:512x512?mpp=1", networks={"student": network}, output=Path("masks.ome.zarr"),
        device="cpu", tile=256, halo=16, batch_size=1, precision="float32", skip_background=False,
    )
    match sys.argv[1]:
        case "thread":
            result_of(start_in_thread(predict, config))
        case "asked":
            memory.keep_memory()
            result_of(start_in_thread(predict, config))
        case "command":
            run(predict, config)
        case "process":
            assert result_of(start_in_process(predict_and_see, config))
    print("stays" if stays() else "goes")
"""

on_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="what other systems do with freed memory is theirs to say"
)


@on_linux
def test_memory_stays_for_a_while_and_goes_back(monkeypatch):
    monkeypatch.setattr(memory, "KEPT_S", 1.0)
    monkeypatch.setattr(memory, "_given_to_jobs", True)
    memory.give_back()  # what jobs before this one left
    process = psutil.Process()
    before = process.memory_info().rss
    with memory.blocks_kept():
        with memory.blocks_kept():
            np.ones(BLOCK, np.uint8)
        assert process.memory_info().rss > before + BLOCK / 2, "another job goes on"
    end = time.monotonic() + 30
    while process.memory_info().rss > before + BLOCK / 2:
        assert time.monotonic() < end, "it was never given back"
        time.sleep(0.05)


@on_linux
@pytest.mark.parametrize(
    ("how", "then"), [("thread", "goes"), ("process", "goes"), ("asked", "stays"), ("command", "stays")]
)
def test_a_prediction_changes_the_memory_of_no_process_that_others_share(tmp_path, how, then):
    """A job in a thread, as in napari, and one in a process of its own leave malloc as it was; the command does not."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, program, how], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == then
