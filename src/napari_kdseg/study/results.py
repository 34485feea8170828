"""What a finished run has to say: its scores, its cost, how long it took, on what and with which version."""

from __future__ import annotations

import csv
import json
import math
import platform
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

import napari_kdseg
from napari_kdseg.errors import OutputError, explain
from napari_kdseg.jobs import Control, Emit
from napari_kdseg.networks import count_parameters, load
from napari_kdseg.networks.anatomy.cost import multiply_adds
from napari_kdseg.study.config import StudyConfig
from napari_kdseg.study.plan import Places, Run, distillation
from napari_kdseg.study.table import TableRow
from napari_kdseg.training import DataConfig, DistillConfig, NetworkChoice
from napari_kdseg.training.job import make_fabric
from napari_kdseg.training.participants import Participants
from napari_kdseg.training.scores.evaluation import evaluate
from napari_kdseg.training.tiles.data import discover
from napari_kdseg.training.tiles.dataset import TileDataset

Scores = dict[str, float]


def finished(run: Run, config: DistillConfig, shared: Mapping[str, Path]) -> tuple[TableRow, Scores, Scores]:
    """Read what a distillation left in its run folder.

    Parameters
    ----------
    run, config
        The run, and the distillation it was.
    shared
        Weights of its stages that other runs may have trained, by name; their seconds lie beside them.

    Returns
    -------
    tuple
        The row of the table, the test Dice of every class, the Dice of every test tile.

    Raises
    ------
    OutputError
        If the run folder was changed meanwhile.
    """
    folder = config.output
    try:
        summary = json.loads((folder / "report" / "summary.json").read_text(encoding="utf-8"))
        with (folder / "report" / "tiles-student-test.csv").open(newline="", encoding="utf-8") as file:
            tiles = {line["tile"]: _tile_dice(line) for line in csv.DictReader(file)}
        before = [json.loads(path.with_suffix(".json").read_text())["seconds"] for path in shared.values()]
    except OSError as error:
        raise OutputError(f"The results of a run in {folder} cannot be read. {explain(error)}") from error
    scores = {
        name: math.nan if v is None else v for name, v in summary["networks"]["student"]["metrics"].items()
    }
    own = stage_seconds(folder)
    seconds = sum(before) + sum(spent for stage, spent in own.items() if stage not in shared)
    checkpoint = load(folder / "checkpoints" / "student.safetensors")
    side = config.student.input_size or config.data.input_size
    row = _row(run, scores, checkpoint.module, side, checkpoint.spec.in_channels, seconds, config)
    return row, _classes(scores, summary["classes"]), tiles


def score_given(
    config: StudyConfig, run: Run, teacher: NetworkChoice, data: DataConfig, emit: Emit, control: Control
) -> tuple[TableRow, Scores, Scores]:
    """Score a teacher that was given as a checkpoint: nothing is trained; returns the same as :func:`finished`."""
    collection = discover(data, control.check)
    distil = distillation(config, run, data, len(collection.train), Places(config.work_folder))
    assert teacher.checkpoint is not None
    loaded = Participants(collection, distil, emit).load("teacher", teacher, teacher.checkpoint)
    fabric, side = make_fabric(distil), teacher.input_size or data.input_size
    scores: Scores = {}
    tiles: list[dict[str, float]] = []
    for split, rows in (("val", []), ("test", tiles)):
        part = TileDataset(collection, getattr(collection, split), side)
        values = evaluate(loaded.module, loaded.spec, part, fabric, config.batch_size, control, tiles=rows)
        scores |= {f"{split}_{name}": value for name, value in values.items()}
    images = {tile.name: _tile_dice(row) for tile, row in zip(collection.test, tiles, strict=True)}
    row = _row(run, scores, loaded.module, side, loaded.spec.in_channels, math.nan, distil)
    return row, _classes(scores, collection.classes), images


def stage_seconds(folder: Path) -> dict[str, float]:
    """Seconds that the training steps of each stage took, from the figures of the run."""
    seconds: dict[str, float] = defaultdict(float)
    batch = json.loads((folder / "config.json").read_text(encoding="utf-8"))["batch_size"]
    with (folder / "metrics.jsonl").open(encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            if record["kind"] == "step" and record["values"].get("images_per_s"):
                seconds[record["stage"]] += batch / record["values"]["images_per_s"]
    return dict(seconds)


def device_name(config: DistillConfig) -> str:
    """Name of what a run computes on."""
    if config.device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU {platform.machine()}, {config.threads or torch.get_num_threads()} threads"


@cache
def commit_name() -> str:
    """Commit of the program where it runs from a working copy, with a '+' where files differ; else its version."""
    folder = Path(napari_kdseg.__file__).parent
    try:
        commit = _git(folder, "rev-parse", "--short=10", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", str(folder))
    except (OSError, subprocess.CalledProcessError):
        return napari_kdseg.__version__
    return commit + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _row(
    run: Run, scores: Scores, network: Any, side: int, channels: int, seconds: float, config: DistillConfig
) -> TableRow:
    return TableRow(
        task=run.task,
        method=run.method,
        teacher=run.teacher,
        student=run.student,
        label_fraction=run.label_fraction,
        seed=run.seed,
        test_dice=scores["test_dice"],
        test_miou=scores["test_miou"],
        val_dice=scores["val_dice"],
        params=count_parameters(network),
        macs=multiply_adds(network, side, side, channels),
        train_seconds=seconds,
        device=device_name(config),
        commit=commit_name(),
    )


def _classes(scores: Mapping[str, float], classes: Sequence[str]) -> Scores:
    return {label: scores.get(f"test_dice/{label}", math.nan) for label in classes[1:]}


def _tile_dice(values: Mapping[str, Any]) -> float:
    """Mean Dice of the foreground classes that a tile shows or is said to show."""
    known = [float(v) for name, v in values.items() if name.startswith("dice/") and v not in ("", None)]
    known = [value for value in known if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
