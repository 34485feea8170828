"""Why PLC-KD helps or does not: what its steps mended, how surely, and what students say at those very pixels.

The networks of a finished study look once more at the tiles, as they are, without augmentation: the student's share of
the training tiles, whose soft labels were corrected, and the test tiles, whose labels nobody learned from.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from scipy.ndimage import distance_transform_edt
from torch import Tensor, nn

from napari_kdseg.distillation import Correction, PlcKdSettings, TeacherTeam, at_size, get_method
from napari_kdseg.errors import ConfigurationError
from napari_kdseg.files import write_whole
from napari_kdseg.jobs import Control, Emit, Started, Step
from napari_kdseg.networks import Checkpoint, load, to_input
from napari_kdseg.study.config import StudyConfig
from napari_kdseg.study.plan import Places, Run, network_name, plan, slug, teacher_checkpoint
from napari_kdseg.study.report.examples import Example, draw_examples
from napari_kdseg.study.stages import shared_stages
from napari_kdseg.study.table import Table
from napari_kdseg.training import DataConfig
from napari_kdseg.training.job import make_fabric
from napari_kdseg.training.tiles.data import TileCollection, discover
from napari_kdseg.training.tiles.dataset import TileDataset, all_batches
from napari_kdseg.training.tiles.tile import stable_hash

METHOD = "plc-kd"
STUDENTS = ("alone", "kd", METHOD)
STEP_NAMES = ("right", "false_pixel", "boundary", "similarity", "fallback")
"""By code: right from the start, then the step that mended a pixel."""

DISTANCES = (2, 5, 10)
"""Upper limits in pixels of the input of the bins of the distance from a border; the last bin has none."""

TILE_KINDS = ("right", "partly wrong", "wholly wrong")
"""Right: the teacher has no false pixel in the tile. Wholly wrong: it has hardly a right one in its foreground."""

HARDLY = 0.05
"""Share of the foreground that may be right in a tile that counts as wholly wrong."""

KEY = ("label_fraction", "seed", "student", "split", "tile", "class", "distance", "step")
SUMS = ("pixels", "before", "after", *(f"right_{name}" for name in STUDENTS))
COUNTS = ("label_fraction", "seed", "student", "split", "tile", "tiles")


@dataclass
class Tally:
    """Sums over pixels and tiles, by what they have in common."""

    pixels: dict[tuple[str, ...], np.ndarray] = field(
        default_factory=lambda: defaultdict(lambda: np.zeros(len(SUMS)))
    )
    tiles: dict[tuple[str, ...], int] = field(default_factory=lambda: defaultdict(int))

    def add(
        self,
        where: tuple[str, ...],
        correction: Correction,
        answers: dict[str, Tensor],
        classes: tuple[str, ...],
    ) -> None:
        """Add a batch: its correction, and what the students say, ``[N, H, W]`` classes each."""
        target, mended_by = correction.target.cpu().numpy(), correction.mended_by.cpu().numpy()
        sure = [_probability_of(p, correction.target) for p in (correction.initial, correction.ultimate)]
        right = [(answers[name] == correction.target).cpu().numpy().astype(np.float64) for name in STUDENTS]
        for number in range(len(target)):
            kind = tile_kind(mended_by[number], target[number])
            self.tiles[*where, kind] += 1
            bins = distance_bins(target[number])
            values = np.stack([np.ones(bins.shape), *(s[number] for s in sure), *(r[number] for r in right)])
            for key in np.unique(
                np.stack([target[number], bins, mended_by[number]]).reshape(3, -1), axis=1
            ).T:
                label, distance, code = (int(part) for part in key)
                if code >= len(STEP_NAMES):
                    continue
                here = (target[number] == label) & (bins == distance) & (mended_by[number] == code)
                name = (*where, kind, classes[label], distance_name(distance), STEP_NAMES[code])
                self.pixels[name] += values[:, here].sum(axis=1)

    def write(self, folder: Path, task: str) -> list[Path]:
        """Write both tables beside the runs."""
        sums = [(*key, *(f"{value:.6g}" for value in self.pixels[key])) for key in sorted(self.pixels)]
        counts = [(*key, str(self.tiles[key])) for key in sorted(self.tiles)]
        files = []
        for name, columns, rows in (("why", KEY + SUMS, sums), ("why-tiles", COUNTS, counts)):
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([columns, *rows])
            files.append(folder / f"{name}-{slug(task)}.csv")
            write_whole(files[-1], text.getvalue().encode())
        return files


def tile_kind(mended_by: np.ndarray, target: np.ndarray) -> str:
    """Say how wrong the teacher was on a tile, from the steps that mended it; see :data:`TILE_KINDS`."""
    labelled = target != 255
    if not (mended_by[labelled] > 0).any():
        return TILE_KINDS[0]
    lesion = labelled & (target > 0)
    return TILE_KINDS[2] if lesion.any() and (mended_by[lesion] == 0).mean() <= HARDLY else TILE_KINDS[1]


def distance_bins(target: np.ndarray) -> np.ndarray:
    """Return the bin of each pixel's distance from the next pixel of another class, ``[H, W]``."""
    distance = np.full(target.shape, np.inf)
    for label in np.unique(target):
        inside = target == label
        if not inside.all():
            distance = np.where(inside, distance_transform_edt(inside), distance)
    return np.searchsorted(DISTANCES, distance, side="left")


def distance_name(number: int) -> str:
    """Name of a bin, in pixels."""
    if number == len(DISTANCES):
        return f"more than {DISTANCES[-1]}"
    return f"up to {DISTANCES[number]}"


def look_into(config: StudyConfig, emit: Emit, control: Control) -> list[Path]:
    """Tally corrections and answers of the students of a study, and draw example tiles; a job.

    Parameters
    ----------
    config
        A study of which the student alone, KD and PLC-KD are done, and whose networks were kept.
    emit, control
        As of any job.

    Returns
    -------
    list
        The files written into the folder of the study; :func:`write_evidence` makes pages of them.

    Raises
    ------
    ConfigurationError
        If these runs are not done, or their networks were not kept.
    """
    emit(Started("Why"))
    config = config.anchored(Path.cwd())
    places, table = Places(config.work_folder), Table(config.output)
    runs = [run for run in plan(config) if run.method == METHOD and _complete(run, table)]
    if not runs:
        raise ConfigurationError(
            "To say why PLC-KD helps, the student alone, KD and PLC-KD of one seed must be done. Go on with the study."
        )
    tally, examples = Tally(), list[Example]()
    for number, run in enumerate(runs, start=1):
        found = _One(config, run, places, control).tally(tally)
        examples = examples or found
        emit(Step("why", number, len(runs)))
    files = tally.write(config.output, config.task)
    picture = config.output / f"examples-{slug(config.task)}.png"
    write_whole(picture, draw_examples(examples))
    return [*files, picture]


def _complete(run: Run, table: Table) -> bool:
    return all(_with(run, method) in table.done for method in STUDENTS)


def _with(run: Run, method: str) -> Run:
    teacher = run.teacher if get_method(method).needs_teacher else ""
    return Run(run.task, method, teacher, run.student, run.label_fraction, run.seed)


class _One:
    """One seed of PLC-KD: its team, and the students that are compared."""

    def __init__(self, config: StudyConfig, run: Run, places: Places, control: Control):
        self.config, self.run, self.control = config, run, control
        keys = shared_stages(config, run)
        choice = next(c for c in config.teachers if network_name(c) == run.teacher)
        paths = {"teacher": teacher_checkpoint(config, run.teacher, places)}
        paths |= {name: places.stage(key) for name, key in keys.items()}
        paths |= {name: places.network(_with(run, name)) for name in STUDENTS}
        missing = [path.name for path in paths.values() if not path.is_file()]
        if missing:
            raise ConfigurationError(
                f"Networks of the study are missing in {places.work} ({', '.join(missing)}). Keep them with "
                "'keep_work: true', and run the study again in a new folder."
            )
        self.collection = self._discover(places)
        self.networks: dict[str, Checkpoint] = {name: load(path) for name, path in paths.items()}
        self.side = choice.input_size or config.data.input_size
        values = get_method(METHOD).settings(config.settings_of(METHOD)).model_dump()
        self.settings = PlcKdSettings(**values)

    def _discover(self, places: Places) -> TileCollection:
        manifest = places.share(self.run.task, self.run.label_fraction, self.run.seed)
        data: DataConfig = self.config.data
        whole = discover(data, self.control.check)
        return discover(
            data.model_copy(update={"manifest": manifest, "classes": whole.classes, "limit": None})
        )

    def tally(self, tally: Tally) -> list[Example]:
        """Add the tiles of both splits; return some training tiles worth looking at."""
        fabric = make_fabric(_device_only(self.config))
        team = TeacherTeam(
            self.networks["teacher"].module.to(fabric.device),
            self._member("false_pixel_assistant", fabric),
            self._member("boundary_assistant", fabric),
            self.settings,
        )
        examples: list[Example] = []
        for split in ("train", "test"):
            where = (f"{self.run.label_fraction:g}", str(self.run.seed), self.run.student, split)
            team.load_state_dict({"class_means": None})
            for images, correction, answers in self._batches(split, team, fabric):
                tally.add(where, correction, answers, self.collection.classes)
                if split == "train":
                    examples += Example.of_batch(images, correction, answers, self.collection.classes)
        return Example.best(examples)

    def _member(self, name: str, fabric: Fabric) -> nn.Module | None:
        return self.networks[name].module.to(fabric.device) if name in self.networks else None

    @torch.no_grad()
    def _batches(
        self, split: str, team: TeacherTeam, fabric: Fabric
    ) -> Iterator[tuple[np.ndarray, Correction, dict[str, Tensor]]]:
        # In any order but that of the names: the tiles of a batch lend each other similar pixels, as in training.
        tiles = sorted(getattr(self.collection, split), key=lambda tile: stable_hash("why", tile.name))
        dataset = TileDataset(self.collection, tiles, self.side)
        students: dict[str, Any] = {name: self.networks[name] for name in STUDENTS}
        for images, targets in all_batches(dataset, self.config.batch_size):
            self.control.check()
            target = targets.to(fabric.device)
            image = to_input(images, self.networks["teacher"].spec, fabric.device)
            answers = {}
            for name, student in students.items():
                module = student.module.to(fabric.device).eval()
                logits = module(to_input(images, student.spec, fabric.device))
                answers[name] = at_size(logits, target.shape[-2:]).argmax(dim=1)
            yield images.numpy(), team.correct(image, target), answers


def _probability_of(probabilities: Tensor, target: Tensor) -> np.ndarray:
    """Probability of the true class, ``[N, H, W]``; 0 where it is not known."""
    known = target != 255
    chosen = probabilities.gather(1, torch.where(known, target, 0)[:, None])[:, 0]
    return torch.where(known, chosen, 0.0).double().cpu().numpy()


def _device_only(config: StudyConfig) -> Any:
    """Return the configuration of a distillation of which nothing but the device is looked at."""
    from napari_kdseg.training import DistillConfig

    return DistillConfig(data=config.data, method="alone", device=config.device, precision="32")
