"""Old run folders: read, resumed from the step after the last, scored again, taken for a correction."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from napari_kdseg.comparison import CorrectConfig
from napari_kdseg.jobs import Done, Message, Step, Validated, run_inline
from napari_kdseg.training import distill, read_history, resume_config

FLOAT32_ROUNDING = 20 * 144 * 2.0**-24
"""A loss is a sum over what twenty layers put out one after the other, each pixel of at most 144 products."""


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def where(record: dict) -> tuple:
    """All that a record says but its figures."""
    return tuple(value for key, value in record.items() if key != "values")


def resumed(folder: Path) -> tuple[list, Done]:
    running = run_inline(distill, resume_config(folder))
    assert isinstance(running.end, Done), running.end
    return running.history, running.end


def test_the_curve_of_an_old_run(written):
    history = read_history(written / "runs" / "stopped")
    steps = [event for event in history if isinstance(event, Step)]
    assert [(event.stage, event.done) for event in steps] == [
        *(("teacher", n) for n in range(1, 16)),
        *(("paraphraser", n) for n in range(1, 11)),
        *(("student", n) for n in range(1, 9)),
    ]
    assert all(math.isfinite(event.values["loss"]) for event in steps)
    scored = [event for event in history if isinstance(event, Validated) and event.stage == "teacher"]
    assert [event.epoch for event in scored] == [1, 2, 3]
    assert "val_dice" in scored[0].metrics


def test_a_stopped_run_goes_on_from_its_step(old):
    """In the middle of an epoch; with averaged weights, and a stage before the student that segments nothing."""
    folder = old / "runs" / "stopped"
    before = records(folder / "metrics.jsonl")
    expected = records(old / "expected" / "stopped-run-went-on.jsonl")
    history, end = resumed(folder)
    steps = [event for event in history if isinstance(event, Step)]
    assert {event.stage for event in steps} == {"student"}, "stages that are done are not trained again"
    assert [event.done for event in steps] == list(range(9, steps[0].total + 1))
    after = records(folder / "metrics.jsonl")
    assert after[: len(before)] == before
    assert [where(record) for record in after] == [where(record) for record in expected]
    first, known = after[len(before)]["values"], expected[len(before)]["values"]
    assert {*first} >= {*known}
    for name in set(known) - {"images_per_s"}:
        # The networks, the batch and the state are those of then, so the losses are; later steps add up rounding.
        assert first[name] == pytest.approx(known[name], rel=FLOAT32_ROUNDING, abs=FLOAT32_ROUNDING), name
    assert {*end.result.metrics} == {"teacher", "student"}
    assert json.loads((folder / "report" / "summary.json").read_text())["method"] == "kd+coco:cocod"


def test_a_stopped_run_of_enet_goes_on_in_its_form(old_enet):
    """Its configuration names ``enet`` alone; its weights are those of ENet as it was then."""
    folder = old_enet / "runs" / "enet"
    student = folder / "checkpoints" / "student.safetensors"
    weights = shapes(student)
    before = records(folder / "metrics.jsonl")
    assert (before[-1]["stage"], before[-1]["done"]) == ("student", 7)
    history, end = resumed(folder)
    steps = [event for event in history if isinstance(event, Step)]
    assert [event.done for event in steps] == list(range(8, steps[0].total + 1))
    assert all(math.isfinite(event.values["loss"]) for event in steps)
    assert end.result.checkpoints["student"] == student
    assert shapes(student) == weights


def shapes(path: Path) -> dict[str, list[int]]:
    with safe_open(path, "np") as file:
        return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118


def test_a_finished_run_is_only_scored_again(old):
    folder = old / "runs" / "finished"
    told = json.loads((folder / "report" / "summary.json").read_text())
    curve = (folder / "metrics.jsonl").read_bytes()
    history, end = resumed(folder)
    assert not [event for event in history if isinstance(event, Step)]
    assert any(isinstance(event, Message) and "finished before" in event.text for event in history)
    assert (folder / "metrics.jsonl").read_bytes() == curve
    networks = ["teacher", "false_pixel_assistant", "boundary_assistant", "student"]
    assert list(end.result.metrics) == networks
    for name in networks:
        known = told["networks"][name]["metrics"]
        for split in ("val", "test"):
            # A pixel that ties may fall on the other side, which moves Dice by at most two parts of the foreground.
            allowed = 2 / foreground(old, folder / "report" / f"tiles-{name}-{split}.csv")
            assert end.result.metrics[name][f"{split}_dice"] == pytest.approx(
                known[f"{split}_dice"], abs=allowed
            )


def foreground(old: Path, tiles: Path) -> int:
    """Pixels of glands in the tiles that a table of scores lists."""
    names = [line.partition(",")[0] for line in tiles.read_text().splitlines()[1:]]
    assert names
    return sum(
        int((np.asarray(Image.open(old / "tiles" / "masks" / f"{name}.png")) == 1).sum()) for name in names
    )


def test_a_correction_takes_the_team_and_the_constants_of_an_old_run(old):
    run = old / "runs" / "finished"
    config = CorrectConfig.from_run(
        run, slide=str(old / "slide.tif"), annotation="mask.tif", output=old / "masks" / "slide.ome.zarr"
    )
    members = (config.teacher, config.false_pixel_assistant, config.boundary_assistant)
    names = ("teacher", "false_pixel_assistant", "boundary_assistant")
    assert members == tuple(run / "checkpoints" / f"{name}.safetensors" for name in names)
    assert (config.settings.temperature, config.settings.queue_length) == (2.0, 64)
