"""Several workers predict the bytes that one program predicts, whatever happens to them."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

pytest.importorskip("distributed", reason="distributed prediction needs the package distributed")
from distributed import LocalCluster

from napari_kdseg.cli import main
from napari_kdseg.inference import PredictConfig, predict
from napari_kdseg.inference.cluster import PredictManyConfig, predict_many
from napari_kdseg.inference.cluster.job import Begun, slabs_for
from napari_kdseg.inference.cluster.local import gpu_workers, threads_of_a_worker
from napari_kdseg.inference.measuring.card import ModelCard, Reach, keep_measurements
from napari_kdseg.inference.prediction import begin, predict_slab
from napari_kdseg.inference.provenance import file_sha256
from napari_kdseg.jobs import (
    Cancelled,
    Checkpointed,
    Control,
    Done,
    Failed,
    Message,
    Paused,
    Resumed,
    Step,
    run_inline,
    run_job,
)
from napari_kdseg.masks import open_masks

SLIDE = "synthetic:600x400?seed=1&mpp=0.5"


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=0, host="127.0.0.1"
    ) as cluster:
        yield cluster


def config(output, checkpoint, **changes) -> PredictConfig:
    settings = {"slide": SLIDE, "networks": {"student": checkpoint}, "output": output, "tile": 96, "halo": 32}
    return PredictConfig(**{**settings, "batch_size": 1, "precision": "float32", "threads": 1, **changes})


def chunks(path) -> dict[str, bytes]:
    return {
        str(item.relative_to(path)): item.read_bytes()
        for item in sorted(path.rglob("c/*/*"))
        if item.is_file()
    }


def undisturbed(tmp_path, checkpoint, **changes) -> dict[str, bytes]:
    job = run_inline(predict, config(tmp_path / "one.ome.zarr", checkpoint, **changes))
    assert isinstance(job.end, Done), job.end
    return chunks(job.end.result.output)


def die_after(tiles: int, sign: str) -> int:
    """Have the worker that this runs on killed when it has written so many tiles; the file ``sign`` tells."""
    from napari_kdseg.masks.writing.writer import MaskWriter

    write, written = MaskWriter.write_tile, []
    one_at_a_time = threading.Lock()  # two threads write: else the other may finish one more tile meanwhile

    def write_and_die(self, *arguments, **options):
        with one_at_a_time:
            result = write(self, *arguments, **options)
            written.append(result)
            if len(written) == tiles:
                Path(sign).write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
        return result

    MaskWriter.write_tile = write_and_die
    return os.getpid()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="SIGKILL is a matter of Unix")
def test_two_workers_one_of_them_killed_give_the_bytes_of_one_program(tmp_path, checkpoint, cluster):
    expected = undisturbed(tmp_path, checkpoint, probabilities=True, skip_background=False)
    many = PredictManyConfig(
        slides=(config(tmp_path / "two.ome.zarr", checkpoint, probabilities=True, skip_background=False),),
        scheduler=cluster.scheduler_address,
    )
    sign = tmp_path / "killed"
    with cluster.get_client() as client:
        victim = sorted(client.scheduler_info()["workers"])[0]
        pid = client.run(die_after, 3, str(sign), workers=[victim])[victim]
    job = run_inline(predict_many, many)
    assert isinstance(job.end, Done), job.end
    assert sign.read_text() == str(pid), "a worker was killed in the middle of a slab"
    (result,) = job.end.result.stores.values()
    student = result.masks["student"]
    # The tiles that the killed worker finished are in the journal: its successor keeps them.
    assert student.tiles_done + 3 == 5 * 7
    assert chunks(result.output) == expected
    mask = open_masks(result.output)["student"]
    assert mask.metadata["status"] == "complete"
    assert (np.asarray(mask.levels[-1]) != 255).all()
    assert not list(result.output.rglob("*slab*"))
    assert [step for step in job.history if isinstance(step, Step)]
    assert isinstance(job.history[-2], Checkpointed)


def test_what_one_program_began_a_cluster_finishes_and_the_other_way_round(tmp_path, checkpoint, cluster):
    expected = undisturbed(tmp_path, checkpoint)
    settings = config(tmp_path / "both.ome.zarr", checkpoint)

    def stopped_after(job, what, steps):
        control, seen = Control(), []

        def observe(event):
            seen.extend([event] if isinstance(event, Step) else [])
            if len(seen) == steps:
                control.cancel()

        return run_job(job, what, observe, control)

    many = PredictManyConfig(slides=(settings,), scheduler=cluster.scheduler_address)
    assert isinstance(stopped_after(predict, settings, 5), Cancelled)
    assert isinstance(stopped_after(predict_many, many, 1), Cancelled)
    assert open_masks(settings.output)["student"].metadata["status"] == "unfinished"
    end = run_inline(predict, settings).end
    assert isinstance(end, Done), end
    assert end.result.masks["student"].tiles_kept >= 6
    assert chunks(settings.output) == expected


def test_a_paused_job_waits_and_goes_on(tmp_path, checkpoint, cluster):
    history = []

    def observe(event):
        history.append(event)
        if isinstance(event, Step) and not any(isinstance(item, Paused) for item in history):
            control.pause()
        elif isinstance(event, Paused):
            control.resume()

    control = Control(observe)
    many = PredictManyConfig(
        slides=(config(tmp_path / "paused.ome.zarr", checkpoint),), scheduler=cluster.scheduler_address
    )
    assert isinstance(run_job(predict_many, many, observe, control), Done)
    assert [type(event) for event in history if isinstance(event, (Paused, Resumed))] == [Paused, Resumed]


def test_slabs_of_a_network_whose_tiles_are_blended_give_the_bytes_of_one_program(tmp_path, make_network):
    network = make_network(tmp_path / "global.safetensors", seed=0, mpp=0.5, architecture="segformer/mit_b0")
    keep_measurements(
        ModelCard(sha256=file_sha256(network), reach=Reach(radius=None))
    )  # takes long to measure
    blended = {
        "slide": "synthetic:400x300?seed=1&mpp=0.5",
        "tile": 128,
        "halo": "auto",
        "skip_background": False,
    }
    expected = undisturbed(tmp_path, network, **blended)
    settings = config(tmp_path / "slabs.ome.zarr", network, **blended)
    begun = run_inline(begin, settings).end.result["student"]
    for slab in slabs_for(begun, 2):
        run_inline(
            lambda settings, emit, control, slab=slab: predict_slab(settings, slab, emit, control), settings
        )
    assert open_masks(settings.output)["student"].metadata["status"] == "unfinished"
    end = run_inline(predict, settings).end
    assert end.result.masks["student"].plan.context.blended
    assert end.result.masks["student"].tiles_kept == begun.tiles
    assert chunks(settings.output) == expected


def test_with_many_slides_each_is_a_task_and_one_that_cannot_be_read_does_not_stop_the_others(
    tmp_path, checkpoint, cluster
):
    slides = [
        config(tmp_path / f"{seed}.ome.zarr", checkpoint, slide=f"synthetic:300x200?seed={seed}&mpp=0.5")
        for seed in (1, 2)
    ]
    lost = config(tmp_path / "lost.ome.zarr", checkpoint, slide=str(tmp_path / "lost.svs"))
    job = run_inline(
        predict_many, PredictManyConfig(slides=(*slides, lost), scheduler=cluster.scheduler_address)
    )
    assert isinstance(job.end, Done), job.end
    assert set(job.end.result.stores) == {item.output for item in slides}
    assert "no slide at" in job.end.result.failures[lost.output]
    assert any("lost.svs" in event.text for event in job.history if isinstance(event, Message))
    for item in slides:
        alone = run_inline(
            predict, item.model_copy(update={"output": tmp_path / f"alone-{item.output.name}"})
        )
        assert isinstance(alone.end, Done), alone.end
        assert chunks(item.output) == chunks(alone.end.result.output)


def test_a_scheduler_that_does_not_answer_is_named(tmp_path, checkpoint, monkeypatch):
    monkeypatch.setattr("napari_kdseg.inference.cluster.job.TIMEOUT", 1)
    many = PredictManyConfig(
        slides=(config(tmp_path / "a.ome.zarr", checkpoint),), scheduler="tcp://127.0.0.1:9"
    )
    end = run_inline(predict_many, many).end
    assert isinstance(end, Failed)
    assert "No dask scheduler answers at tcp://127.0.0.1:9" in end.message


def test_slides_are_not_written_to_one_store(tmp_path, checkpoint):
    one = config(tmp_path / "a.ome.zarr", checkpoint)
    with pytest.raises(ValidationError, match="same store"):
        PredictManyConfig(slides=(one, one.model_copy(update={"slide": "synthetic:9x9"})))


def test_slabs_hold_every_tile_once_and_leave_every_worker_a_few():
    todo = tuple((row, column) for row in range(20) for column in range(30))
    for workers, levels, expected in [(1, 9, 3), (4, 9, 3), (5, 9, 2), (99, 9, 1), (1, 2, 1), (1, 1, 0)]:
        slabs = slabs_for(Begun(600, todo, levels), workers)
        assert {slab.level for slab in slabs} == {expected}
        assert all(sum(slab.holds(tile) for slab in slabs) == 1 for tile in todo)


def test_every_gpu_has_a_worker_that_sees_no_other():
    workers = gpu_workers(["0", "GPU-5ad"])
    assert [item["options"]["env"] for item in workers.values()] == [
        {"CUDA_VISIBLE_DEVICES": "0"},
        {"CUDA_VISIBLE_DEVICES": "GPU-5ad"},
    ]
    assert threads_of_a_worker(3) == 3


def test_the_command_predicts_a_folder_of_slides_on_a_scheduler(
    tmp_path, checkpoint, cluster, slide_without_mpp, monkeypatch, capsys
):
    folder = tmp_path / "slides"
    folder.mkdir()
    for name in ("one.tif", "two.tif"):
        shutil.copy(slide_without_mpp, folder / name)
    (folder / "three.svs").write_bytes(b"no slide")
    arguments = ["predict", str(folder), "--checkpoint", str(checkpoint), "--output", str(tmp_path / "masks")]
    settings = [
        "--name",
        "student",
        "--tile",
        "256",
        "--halo",
        "32",
        "--scheduler",
        cluster.scheduler_address,
    ]
    monkeypatch.setattr(sys, "argv", ["kdseg", *arguments, *settings])
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr()
    assert stopped.value.code == 2
    assert "three.svs: " in said.err.replace("\n", " ")
    assert said.out.count("label 'student'") == 2
    for name in ("one", "two"):
        assert open_masks(tmp_path / "masks" / f"{name}.ome.zarr")["student"].metadata["status"] == "complete"
