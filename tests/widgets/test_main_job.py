"""The main job through the real docks: distil in the thread, pan, stop, resume, predict, see the masks lie right."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import tifffile

from napari_kdseg.jobs import Cancelled, Done, run_inline
from napari_kdseg.training import DataConfig, DistillConfig, NetworkChoice, distill
from napari_kdseg.widgets import binding as layers
from napari_kdseg.widgets.binding import session_of

WAIT = 120_000
MPP = 0.5


@pytest.fixture
def slide_path(tmp_path, draw_tissue):
    """A pyramidal TIFF of 1024 px at 0.5 µm with dark discs, and a mask file of the discs."""
    image, mask = draw_tissue(1024, seed=3)
    path = tmp_path / "slide.tif"
    scale = {"resolution": (1e4 / MPP, 1e4 / MPP), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as tif:
        tif.write(image, tile=(256, 256), photometric="rgb", subifds=0, **scale)
        tif.write(image[::2, ::2], tile=(256, 256), photometric="rgb", subfiletype=1)
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    return path


def fill_distil_dock(dock, tiles, output, method="plc-kd"):
    dock.fill(
        DistillConfig(
            data=DataConfig(folder=tiles, input_size=64, validation_fraction=0.2, mpp=MPP),
            teacher=NetworkChoice(
                architecture="unet/tu-resnet18", options={"encoder_depth": 3, "decoder_channels": [32, 16, 8]}
            ),
            student=NetworkChoice(architecture="enet"),
            method=method,
            settings={"warm_up_epochs": 1} if method == "plc-kd" else {},
            teacher_epochs=2,
            epochs=4,
            batch_size=4,
            device="cpu",
            output=output,
        )
    )


def wait_for(qtbot, condition):
    qtbot.waitUntil(lambda: bool(condition()), timeout=WAIT)


def threads_of_jobs():
    """Threads of jobs; those that decode tiles stay for the next slide."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("kdseg") and not name.startswith("kdseg-decode")]


def losses(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        (line["stage"], line["done"], line["values"]["loss"])
        for line in lines
        if "loss" in line.get("values", {})
    ]


@pytest.mark.slow
def test_distil_pan_stop_resume_predict_and_see(viewer, dock, qtbot, tiles, slide_path, tmp_path):
    slide_dock, models, distil = dock("1 Slide"), dock("2 Models"), dock("3 Distil")
    session = session_of(viewer)
    slide_dock.open(str(slide_path))
    wait_for(qtbot, lambda: session.slide is not None and session.masks_path() is not None)
    assert session.slide.mpp == pytest.approx((MPP, MPP))

    # start, and pan while it runs
    run = tmp_path / "run"
    fill_distil_dock(distil, tiles, run)
    job = distil.start()
    for step in range(10):
        viewer.scene.camera.center = (100 + 20 * step, 250)
        viewer.scene.camera.zoom = 2 + step / 4
        qtbot.wait(20)
    assert job.running.running, "the distillation should still run while the slide is panned"

    # stop in the middle of the student's stage
    wait_for(qtbot, lambda: job.latest is not None and job.latest.stage == "student" and job.latest.done >= 3)
    distil.run_progress.stop()
    with qtbot.waitSignal(job.ended, timeout=WAIT) as ended:
        pass
    assert isinstance(ended.args[0], Cancelled)
    assert "Resume" in distil.run_progress.state.text()

    # resume: the curve goes on as if it had never stopped
    resumed = distil.resume(str(run))
    with qtbot.waitSignal(resumed.ended, timeout=WAIT) as ended:
        pass
    assert isinstance(ended.args[0], Done), ended.args[0]
    reference = DistillConfig.load(run / "config.json").model_copy(update={"output": tmp_path / "reference"})
    assert isinstance(run_inline(distill, reference).end, Done)
    assert losses(run) == losses(tmp_path / "reference")
    expected = {done: loss for stage, done, loss in losses(run) if stage == "student"}
    wait_for(qtbot, lambda: len(distil.run_progress.curves.points["loss", "student"]) == len(expected))
    assert dict(distil.run_progress.curves.points["loss", "student"]) == pytest.approx(expected)

    wait_for(qtbot, lambda: "student after epoch 4" in distil.run_progress.preview.caption.text())
    assert not distil.run_progress.preview.picture.pixmap().isNull()
    assert len(distil.run_progress.curves.points["validation", "student"]) == 4

    # the new student and its teacher on the slide
    distil.use_student()
    wait_for(qtbot, lambda: {"teacher", "student"} <= set(session.models))
    assert "Dice" in models.cards["student"].facts.text()
    models.context.setCurrentText("64 px")  # measuring how much is needed is tested elsewhere
    for role in ("teacher", "student"):
        with qtbot.waitSignal(models.predict([role], whole=True).ended, timeout=WAIT) as ended:
            pass
        assert isinstance(ended.args[0], Done), ended.args[0]
    wait_for(qtbot, lambda: layers.find(viewer, "disagreement") is not None)
    truth = tifffile.imread(tmp_path / "mask.tif")
    assert overlap(viewer, "teacher", truth) > 0.9
    assert_level0_alignment(viewer, "teacher")
    assert_level0_alignment(viewer, "student")

    # correct the soft labels against the annotation
    compare = dock("4 Compare")
    slide_dock.annotations.open(str(tmp_path / "mask.tif"))
    wait_for(qtbot, lambda: session.annotation is not None)
    viewer.fit_to_view()
    with qtbot.waitSignal(compare.corrections.start().ended, timeout=WAIT) as ended:
        pass
    assert isinstance(ended.args[0], Done), ended.args[0]
    wait_for(
        qtbot, lambda: layers.find(viewer, "change") is not None and compare.corrections.counts.count() > 0
    )
    assert ended.args[0].result.counts.wrong[-1] == 0
    assert_level0_alignment(viewer, "mended_by")


def overlap(viewer, role, truth):
    """Dice of a mask layer with the truth, both looked up by where they lie in the world."""
    layer = layers.find(viewer, role)
    slide = layers.find(viewer, "slide")
    rows, columns = np.meshgrid(np.arange(2, 1022, 5), np.arange(2, 1022, 5), indexing="ij")
    mask = np.asarray(layer.data[0][:, :])
    seen = []
    for y, x in zip(rows.ravel(), columns.ravel(), strict=True):
        at = np.round(layer.world_to_data(slide.data_to_world((y, x)))).astype(int)
        seen.append(mask[tuple(np.clip(at, 0, np.array(mask.shape) - 1))])
    seen, known = np.asarray(seen), truth[rows.ravel(), columns.ravel()]
    return 2 * ((seen == 1) & (known == 1)).sum() / ((seen == 1).sum() + (known == 1).sum())


def assert_level0_alignment(viewer, role):
    """Mask pixel i covers level-0 pixels [i f, (i + 1) f): their centres must map into it at every corner."""
    layer, slide = layers.find(viewer, role), layers.find(viewer, "slide")
    factor = layer.scale / slide.scale
    for corner in ((0, 0), (7, 900), (1023, 1023)):
        expected = (np.asarray(corner) + 0.5) / factor - 0.5
        np.testing.assert_allclose(
            layer.world_to_data(slide.data_to_world(corner)), expected, atol=1e-6, equal_nan=False
        )


def test_window_closed_mid_training_leaves_no_thread_and_a_checkpoint(
    make_napari_viewer, qtbot, tiles, tmp_path
):
    viewer = make_napari_viewer(show=True)
    distil = viewer.window.add_plugin_dock_widget("napari-kdseg", "3 Distil")[1]
    fill_distil_dock(distil, tiles, tmp_path / "run", method="alone")
    job = distil.start()
    wait_for(qtbot, lambda: job.latest is not None and job.latest.done >= 2)
    running = job.running
    viewer.close()
    assert running.join(60), "the job must end when its window is closed"
    assert isinstance(running.end, Cancelled)
    assert (tmp_path / "run" / "checkpoints" / "state.pt").stat().st_size > 0
    wait_for(qtbot, lambda: not threads_of_jobs())
    # what was saved is whole: the run goes on from it
    config = DistillConfig.load(tmp_path / "run" / "config.json")
    assert isinstance(run_inline(distill, config).end, Done)


def test_out_of_memory_is_explained_and_the_checkpoint_kept(
    viewer, dock, qtbot, tiles, tmp_path, monkeypatch
):
    import torch

    from napari_kdseg.networks.papers.enet import ENet

    distil = dock("3 Distil")
    fill_distil_dock(distil, tiles, tmp_path / "run", method="alone")
    forward, calls = ENet.forward, []

    def runs_out(self, image):
        calls.append(1)
        if len(calls) == 12:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self, image)

    monkeypatch.setattr(ENet, "forward", runs_out)
    job = distil.start()
    with qtbot.waitSignal(job.ended, timeout=WAIT):
        pass
    assert "not enough memory" in distil.run_progress.state.text()
    assert "batch size" in distil.run_progress.state.text()
    assert distil.start_button.isEnabled()
    wait_for(qtbot, lambda: not threads_of_jobs())
    monkeypatch.setattr(ENet, "forward", forward)
    resumed = distil.resume(str(tmp_path / "run"))
    with qtbot.waitSignal(resumed.ended, timeout=WAIT) as ended:
        pass
    assert isinstance(ended.args[0], Done), ended.args[0]
