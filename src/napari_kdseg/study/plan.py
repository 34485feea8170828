"""The runs of a study, in their order, and the distillation that each of them is."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from napari_kdseg.distillation import family_of, get_method
from napari_kdseg.study.config import StudyConfig
from napari_kdseg.training import DataConfig, DistillConfig, NetworkChoice
from napari_kdseg.training.tiles.dataset import batch_count

TEACHER = "teacher"
"""What the table calls the method of a teacher's own row."""


@dataclass(frozen=True)
class Run:
    """One row of the table: what is trained, how, on how many of the labels.

    Attributes
    ----------
    task, method, teacher, student, label_fraction, seed
        As in the table. A teacher's own row has the method :data:`TEACHER` and the teacher as student; a student
        without a teacher has none.
    """

    task: str
    method: str
    teacher: str
    student: str
    label_fraction: float
    seed: int

    @property
    def name(self) -> str:
        """Name of its files."""
        parts = [
            self.task,
            self.student,
            f"{self.label_fraction:g}",
            str(self.seed),
            self.teacher,
            self.method,
        ]
        return "__".join(slug(part) or "none" for part in parts)

    @property
    def title(self) -> str:
        """What it is, for people."""
        if self.method == TEACHER:
            return f"teacher {self.teacher}"
        return f"{self.student}, {self.label_fraction:.0%} of the labels, seed {self.seed}: {self.method}"


def slug(text: str) -> str:
    """Return ``text`` as part of the name of a file."""
    return re.sub(r"[^A-Za-z0-9.+]+", "-", text)


def network_name(choice: NetworkChoice) -> str:
    """Name of a network in the table."""
    return choice.architecture or (Path(choice.checkpoint).stem if choice.checkpoint else "")


def teacher_run(config: StudyConfig, teacher: NetworkChoice) -> Run:
    """Return the run that trains a teacher."""
    name = network_name(teacher)
    return Run(config.task, TEACHER, name, name, 1.0, config.seeds[0])


def plan(config: StudyConfig) -> list[Run]:
    """List all runs: teachers, methods, then variants of methods; seed by seed, so that there is always a table."""
    runs = [teacher_run(config, teacher) for teacher in config.teachers]
    for ablations in (False, True):
        methods = [method for method in config.methods if is_variant(method) == ablations]
        for fraction, seed, student, method in product(
            config.label_fractions, config.seeds, map(network_name, config.students), methods
        ):
            needed = get_method(method).needs_teacher
            teachers = [network_name(teacher) for teacher in config.teachers] if needed else [""]
            runs += [Run(config.task, method, teacher, student, fraction, seed) for teacher in teachers]
    return runs


def is_variant(method: str) -> bool:
    """Whether a method is a variant of another, such as a row of an ablation."""
    return family_of(method) != method


@dataclass(frozen=True)
class Places:
    """Where the files of a study lie."""

    work: Path

    def run(self, run: Run) -> Path:
        """Run folder of a run."""
        return self.work / "runs" / run.name

    def network(self, run: Run) -> Path:
        """Weights that a run ends with."""
        return self.run(run) / "checkpoints" / "student.safetensors"

    def share(self, task: str, fraction: float, seed: int) -> Path:
        """Manifest of a share of the labels."""
        return self.work / "shares" / f"{slug(task)}-{fraction:g}-{seed}.csv"

    def memory(self, run: Run) -> Path:
        """What teachers put out for the tiles of a share, for all runs of a seed; kept apart for the variants."""
        part = "variants" if is_variant(run.method) else "methods"
        return self.work / "memory" / f"{run.label_fraction:g}-{run.seed}-{part}"

    def stage(self, key: str) -> Path:
        """Weights of a stage that several runs share."""
        return self.work / "stages" / f"{key}.safetensors"


def epochs_for(steps: int, tiles: int, batch_size: int) -> int:
    """Return the passes over ``tiles`` that make up at least ``steps``."""
    return max(1, math.ceil(steps / batch_count(tiles, batch_size)))


def distillation(
    config: StudyConfig,
    run: Run,
    data: DataConfig,
    tiles: int,
    places: Places,
    trained_stages: dict[str, Path] | None = None,
) -> DistillConfig:
    """Return the distillation that a run is.

    Parameters
    ----------
    config, run
        The study and one of its runs.
    data
        The share of the tiles it sees.
    tiles
        How many of them are for training.
    places
        Where its files lie.
    trained_stages
        Stages that another run has trained already.
    """
    common = _common(config, run) | {"data": data, "output": places.run(run)}
    if run.method == TEACHER:
        every = max(1, math.ceil(config.teacher_epochs / config.teacher_validations))
        return DistillConfig(
            **common,
            method="alone",
            student=_named(config.teachers, run.teacher),
            epochs=config.teacher_epochs,
            patience=config.teacher_patience,
            validate_every=every,
            optimiser=config.teacher_optimiser or config.optimiser,
        )
    epochs = epochs_for(config.steps, tiles, config.batch_size)
    if run.teacher:
        common["teacher"] = _trained(config, run.teacher, places)
    return DistillConfig(
        **common,
        method=run.method,
        settings=config.settings_of(run.method),
        student=_named(config.students, run.student),
        epochs=epochs,
        validate_every=max(1, math.ceil(epochs / config.validations)),
        optimiser=config.optimiser,
        remember_teacher=config.remember_teacher and bool(run.teacher),
        memory=places.memory(run) if config.remember_teacher and run.teacher else None,
        trained_stages=trained_stages or {},
    )


def _common(config: StudyConfig, run: Run) -> dict[str, Any]:
    """Return the settings that teachers and students have alike."""
    return {
        "batch_size": config.batch_size,
        "augment": config.augment,
        "augmentation": config.augmentation,
        "sampling": config.sampling,
        "device": config.device,
        "precision": config.precision,
        "seed": run.seed,
        "previews": False,
        "report": "student",
    }


def _named(choices: tuple[NetworkChoice, ...], name: str) -> NetworkChoice:
    return next(choice for choice in choices if network_name(choice) == name)


def teacher_checkpoint(config: StudyConfig, name: str, places: Places) -> Path:
    """Return the weights of a teacher: what its own run left, or the checkpoint that was given."""
    choice = _named(config.teachers, name)
    return choice.checkpoint or places.network(teacher_run(config, choice))


def _trained(config: StudyConfig, name: str, places: Places) -> NetworkChoice:
    """Return a teacher as the students' runs take it."""
    choice = _named(config.teachers, name)
    if choice.checkpoint is not None:
        return choice
    return NetworkChoice(checkpoint=teacher_checkpoint(config, name, places), input_size=choice.input_size)
