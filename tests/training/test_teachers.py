"""Several teachers in one run, teachers that see tiles in another way, and teachers that are remembered."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from napari_kdseg.jobs import Cancelled, Done, Message, RunningJob, Step, run_inline, run_job
from napari_kdseg.networks import NetworkSpec, create_from, inspect, load, save, to_input
from napari_kdseg.training import DataConfig, DistillConfig, NetworkChoice, discover, distill
from napari_kdseg.training.run.teacher_memory import changing_tiles

STILL = {"stain_probability": 0, "light_probability": 0, "blur_probability": 0, "scale_probability": 0}


def checkpoint(path, seed, architecture="enet", **fields):
    spec = NetworkSpec(architecture=architecture, classes=("background", "gland"), **fields)
    torch.manual_seed(seed)
    return save(path, create_from(spec), spec)


@pytest.fixture
def config(make_tiles, tmp_path):
    """15 tiles of 64 pixels to train on in 3 batches, seen at 32; two given teachers of different normalisation."""
    other = {"mean": (0.7, 0.5, 0.6), "std": (0.2, 0.3, 0.2)}
    return DistillConfig(
        data=DataConfig(folder=make_tiles(18, size=64), input_size=32),
        teacher=NetworkChoice(checkpoint=checkpoint(tmp_path / "one.safetensors", 1)),
        student=NetworkChoice(architecture="enet"),
        method="kd",
        epochs=2,
        batch_size=5,
        augment=False,
        threads=torch.get_num_threads(),
        output=tmp_path / "run",
        more_teachers=(NetworkChoice(checkpoint=checkpoint(tmp_path / "two.safetensors", 2, **other)),),
    )


def curve(folder):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{**r, "values": {k: v for k, v in r["values"].items() if k != "images_per_s"}} for r in records]


def texts(running):
    return " ".join(event.text for event in running.history if isinstance(event, Message))


def changed(config, name, **changes):
    values = config.model_dump() | {"output": config.output.with_name(name)} | changes
    return DistillConfig.model_validate(values)


# -- several teachers, each seeing tiles its own way --------------------------------------------------


def test_two_teachers_of_other_sizes_and_normalisation(config, tmp_path):
    start = checkpoint(tmp_path / "start.safetensors", 3, mean=(0.4, 0.4, 0.4), std=(0.3, 0.3, 0.3))
    first = {**config.teacher.model_dump(), "input_size": 64}
    config = changed(config, "both", method="kd+cwd@2", teacher=first, student={"checkpoint": start})
    running = run_inline(distill, config)
    assert isinstance(running.end, Done), running.end
    said = texts(running)
    assert "The teacher's Dice on the 3 validation tiles" in said
    assert "The teacher 2's Dice on the 3 validation tiles" in said
    steps = [event for event in running.history if isinstance(event, Step)]
    assert {event.stage for event in steps} == {"student"}
    assert {"kd", "cwd", "weighted/kd", "weighted/cwd"} <= set(steps[0].values)
    for name, given in (("teacher", "one"), ("teacher_2", "two")):
        kept = load(running.end.result.checkpoints[name]).module.state_dict()
        was = load(tmp_path / f"{given}.safetensors").module.state_dict()
        assert all(torch.equal(kept[key], was[key]) for key in was)
    student = inspect(running.end.result.checkpoints["student"])
    assert (student.mean, student.input_size) == ((0.4, 0.4, 0.4), 32), "it goes on seeing as it began"


def test_the_first_step_is_that_of_teacher_and_student_fed_by_hand(config, tmp_path, monkeypatch):
    """What teachers are shown in a run equals what :func:`to_input` makes of the same tile for each of them."""
    from napari_kdseg.distillation import reading
    from napari_kdseg.training.run import loop

    fed, tiles = {}, []
    to_input_of_the_loop, honest = loop.to_input, reading.run_frozen

    def overheard(name, network, image, layers):
        fed.setdefault(id(network), []).append(image)
        return honest(name, network, image, layers)

    monkeypatch.setattr(
        loop, "to_input", lambda image, *rest: tiles.append(image) or to_input_of_the_loop(image, *rest)
    )
    monkeypatch.setattr(reading, "run_frozen", overheard)
    config = changed(config, "hand", method="kd+kd@2", epochs=1)
    assert isinstance(run_inline(distill, config).end, Done)
    batches = [[image for image in images if image.shape[0] == 5] for images in fed.values()]
    seen = [images[0] for images in batches if images]
    specs = [inspect(tmp_path / f"{name}.safetensors") for name in ("one", "two")]
    assert len(seen) == 2
    for image, spec in zip(seen, specs, strict=True):
        torch.testing.assert_close(image, to_input(tiles[0], spec), rtol=0, atol=1e-5)


def test_teachers_without_checkpoints_are_trained_one_after_the_other(config):
    more = ({"architecture": "linknet/resnet18"},)
    config = changed(
        config,
        "trained",
        method="kd+kd@2",
        teacher={"architecture": "enet"},
        more_teachers=more,
        teacher_epochs=1,
        epochs=1,
    )
    running = run_inline(distill, config)
    assert isinstance(running.end, Done), running.end
    stages = dict.fromkeys(event.stage for event in running.history if isinstance(event, Step))
    assert list(stages) == ["teacher", "teacher_2", "student"]
    assert (config.output / "checkpoints" / "teacher_2-last.safetensors").exists(), "the best epoch is kept"
    assert inspect(running.end.result.checkpoints["teacher_2"]).architecture == "linknet/resnet18"


def test_a_method_that_asks_for_more_teachers_than_there_are(config):
    with pytest.raises(ValidationError, match="learns from 3 teachers, but there are 2"):
        changed(config, "three", method="kd@3")


# -- class weights -----------------------------------------------------------------------------------


def test_classes_are_weighed_by_how_rare_they_are(config):
    config = changed(config, "weighed", method="alone", weigh_classes=True, epochs=1)
    running = run_inline(distill, config)
    assert isinstance(running.end, Done), running.end
    assert "background counts 0." in texts(running)
    plain = changed(config, "plain", weigh_classes=False)
    run_inline(distill, plain)
    first, other = (curve(c.output)[0]["values"]["segmentation"] for c in (config, plain))
    assert first != other
    named = changed(config, "named", settings={"class_weights": (1, 1)})
    running = run_inline(distill, named)
    assert curve(named.output)[0]["values"]["segmentation"] == pytest.approx(other), "constants come first"
    assert "counts" not in texts(running)


# -- remembered teachers -----------------------------------------------------------------------------


def test_a_remembered_teacher(config, monkeypatch):
    """The curve is that of a teacher run anew, to rounding: a network adds up otherwise in a batch of other tiles."""
    from napari_kdseg.training.run import teacher_memory

    plain = changed(config, "plain", method="plc-kd:sc+cwd@2")
    assert isinstance(run_inline(distill, plain).end, Done)
    runs = []
    honest = teacher_memory.run_frozen
    monkeypatch.setattr(
        teacher_memory, "run_frozen", lambda name, *rest: runs.append(name) or honest(name, *rest)
    )
    whole = changed(plain, "whole", remember_teacher=True)
    assert isinstance(run_inline(distill, whole).end, Done)
    assert len(runs) == 2 * 3, "each teacher ran once for each batch of one epoch"
    assert not (whole.output / "remembered").exists()
    for ours, theirs in zip(curve(whole.output), curve(plain.output), strict=True):
        assert ours["values"] == pytest.approx(theirs["values"], rel=1e-3, abs=1e-5)

    stopped = changed(whole, "stopped")
    running = RunningJob()
    running.observe(
        lambda event: running.control.cancel() if isinstance(event, Step) and event.done == 4 else None
    )
    assert isinstance(run_job(distill, stopped, running.emit, running.control), Cancelled)
    assert any((stopped.output / "remembered").rglob("*.safetensors")), "found again when it goes on"
    assert isinstance(run_inline(distill, stopped).end, Done)
    assert len(runs) == 2 * (2 * 3)
    assert curve(stopped.output) == curve(whole.output)


def test_flips_and_turns_come_again_but_stain_does_not(config):
    tiles = discover(config.data).train
    assert changing_tiles(changed(config, "turned", augment=STILL), tiles) is None
    oblong = [replace(tiles[0], size=(64, 80))]
    assert "not square" in changing_tiles(changed(config, "oblong", augment=STILL), oblong)
    stained = changed(config, "stained", augment=True, remember_teacher=True, epochs=1)
    assert "not remembered: the augmentation changes stain and light" in texts(run_inline(distill, stained))


def test_a_full_disk_is_said_once_and_training_goes_on(config, monkeypatch):
    from napari_kdseg.training.run import teacher_memory

    monkeypatch.setattr(teacher_memory, "LEAST_FREE", 2**62)
    running = run_inline(distill, changed(config, "full", remember_teacher=True, epochs=1))
    assert isinstance(running.end, Done)
    assert texts(running).count("disk is nearly full") == 1
