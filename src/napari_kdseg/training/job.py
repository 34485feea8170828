"""The distillation job: teacher, then the stages of the method, then scores; run without a window or from one.

Calling it again with the same run folder goes on where it stopped.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from napari_kdseg.distillation import AloneSettings, Stage, StudentStage, View, freeze, get_method
from napari_kdseg.errors import DataError
from napari_kdseg.jobs import Checkpointed, Control, Emit, Message, Started
from napari_kdseg.memory import blocks_kept
from napari_kdseg.networks import Checkpoint, NetworkSpec, Shares, inspect, save
from napari_kdseg.networks.spec import REVISION
from napari_kdseg.training.config import RUN_ONLY, DistillConfig
from napari_kdseg.training.participants import Participants
from napari_kdseg.training.processes import (
    connected,
    demand_alike,
    make_fabric,
    processes_here,
    quiet_unless_first,
    shared_control,
)
from napari_kdseg.training.run.loop import Workplace, evaluate, fit
from napari_kdseg.training.run.run_folder import RunFolder
from napari_kdseg.training.run.teacher_memory import TeacherMemory, changing_tiles
from napari_kdseg.training.run.weights import load_weights, segments
from napari_kdseg.training.settings import NetworkChoice
from napari_kdseg.training.tiles.data import TileCollection, discover
from napari_kdseg.training.tiles.dataset import TileDataset, batch_count
from napari_kdseg.training.tiles.sampling import median_frequency_weights


@dataclass(frozen=True)
class DistillResult:
    """What a distillation made.

    Attributes
    ----------
    run
        The run folder.
    metrics
        Scores by network: ``val_dice``, ``val_iou`` ..., ``test_dice`` ... where there are test tiles.
    checkpoints
        Best weights by network.
    """

    run: Path
    metrics: dict[str, dict[str, float]]
    checkpoints: dict[str, Path]


def distill(config: DistillConfig, emit: Emit, control: Control) -> DistillResult:
    """Distil a student from a teacher; a job for :mod:`napari_kdseg.jobs`.

    A teacher without a checkpoint is trained first. Each network is kept with the weights that were best on the
    validation tiles, and scored on validation and test tiles in the end.

    Parameters
    ----------
    config
        What to do. If ``config.output`` holds a stopped run of the same configuration, that run goes on.
    emit
        Receives the events.
    control
        Looked at after every batch.

    Raises
    ------
    KdsegError
        If data, networks, settings or run folder do not work; the message says what to do.
    """
    fabric = make_fabric(config)
    with _threads(config.threads), blocks_kept(), connected(fabric, config) as ours:
        emit = quiet_unless_first(emit, ours)
        emit(Started(f"{get_method(config.method).title}: distillation"))
        with RunFolder(config.output, config, writes=ours.first) as run:
            ours.largest(0)  # the first process has the run folder now
            return _Distillation(config, fabric, run, emit, control, ours).run()


class _Distillation:
    def __init__(
        self,
        config: DistillConfig,
        fabric: Fabric,
        run: RunFolder,
        emit: Emit,
        control: Control,
        ours: Shares,
    ):
        self.config, self.fabric, self.run_folder, self.emit = config, fabric, run, emit
        self.own_control, self.control, self.ours = control, shared_control(control, emit, ours), ours
        self.method = get_method(config.method)
        self.settings = self.method.settings(config.settings)
        self.state = run.load_state()
        # A run goes on with the networks and layers it began with; before there were revisions it kept none.
        self.revision = REVISION if self.state is None else self.state.get("revision", 1)
        self.collection = self._discover()
        self._compare_processes()
        self._datasets: dict[tuple[str, int], TileDataset] = {}
        self.participants = Participants(self.collection, config, emit, self.revision)
        self.sides = {name: self.participants.side(choice) for name, choice in config.teachers.items()}
        self.sides["student"] = self.participants.side(config.student)
        side = self.sides["student"]
        self.workplace = Workplace(
            config, run, self.fabric, self._dataset("train", side), self._dataset("val", side), emit, self.control,
            self.collection.fingerprint, self.revision,
        )  # fmt: skip
        self.networks: dict[str, tuple[nn.Module, NetworkSpec, int]] = {}

    def run(self) -> DistillResult:
        self._begin()
        teachers = {name: self._teacher(name, choice) for name, choice in self.config.teachers.items()}
        student = self._student(next((t.spec for t in teachers.values() if t.spec.segments), None))
        self._weigh_classes()
        self._plan(list(teachers.values()), student)
        for name, teacher in teachers.items():
            self._train_teacher(name, teacher)
        for stage in self._stages(list(teachers.values()), student):
            name = "student" if stage.input_of is None else list(teachers)[stage.input_of]
            spec = student.spec if name == "student" else teachers[name].spec
            spec = spec.model_copy(update={"method": self.config.method, "metrics": {}})
            tiles = max(self.sides.values()) if name == "student" else self.sides[name]
            self._train(stage, self._epochs(stage), spec, self.sides[name], tiles)
        return self._score()

    def _dataset(self, split: str, side: int) -> TileDataset:
        """Return the tiles of a split as a network sees them whose input has this side."""
        if (split, side) not in self._datasets:
            self._datasets[split, side] = TileDataset(self.collection, getattr(self.collection, split), side)
        return self._datasets[split, side]

    # -- before training ------------------------------------------------------------------------------------------

    def _discover(self) -> TileCollection:
        data = self.config.data
        first = next(iter(self.config.teachers.items()), None)
        teacher = None if first is None else self._given_teacher(*first)
        choice = self.config.teacher
        says_all = choice.architecture is None and not choice.new_head
        if teacher is not None and says_all and data.classes is None and data.labels == "mask":
            # The tiles need not show every class that the teacher knows.
            data = data.model_copy(update={"classes": inspect(teacher).classes})
        collection = discover(data, self.own_control.check)
        for message in collection.messages:
            self.emit(Message(message, "warning"))
        counts = collection.counts
        self.emit(
            Message(
                f"{counts['train']} tiles for training, {counts['val']} for validation, {counts['test']} for the test; "
                f"classes: {', '.join(collection.classes)}."
            )
        )
        if not collection.val:
            raise DataError(
                "There are no validation tiles. Give some the split 'val', or leave the column out."
            )
        return collection

    def _compare_processes(self) -> None:
        """Let no process start from something else than the others do."""
        position = "" if self.state is None else f"{self.state['stage']} {self.state['position']}"
        demand_alike(
            self.ours,
            settings=self.config.resolved().model_dump_json(exclude=set(RUN_ONLY)),
            training_data=self.collection.fingerprint,
            checkpoints_of_the_run=position,
        )

    def _begin(self) -> None:
        """Go back to the last checkpoint, or to the beginning."""
        if self.state is None:
            self.run_folder.rewind(0)
            return
        if self.state["fingerprint"] != self.collection.fingerprint:
            raise DataError(
                "The training data changed since this run was stopped, so it cannot go on as it began. Bring the "
                "old data back, or start a new run in another folder."
            )
        self.run_folder.rewind(self.state["metrics_size"])
        self.workplace.position = self.state["position"]
        self.workplace.completed = self.state["completed"]
        stage, epoch = self.state["stage"], self.state["progress"]["epoch"] + 1
        if stage == "student" and epoch > self.config.epochs:
            self.emit(Message("This run was finished before: its networks are only scored again."))
        else:
            self.emit(Message(f"Resumed: {stage.replace('_', ' ')}, epoch {epoch}."))

    def _given_teacher(self, name: str, choice: NetworkChoice) -> Path | None:
        """Checkpoint of a teacher that is not trained here: on resume the run's own copy."""
        own = self.run_folder.network(name)
        if choice.checkpoint is None:
            return None
        if (
            choice.is_encoder or choice.new_head
        ):  # too large to keep in every run; not yet the network of this run
            return choice.checkpoint
        return own if self.state is not None and own.exists() else choice.checkpoint

    def _teacher(self, name: str, choice: NetworkChoice) -> Checkpoint:
        checkpoint = self._given_teacher(name, choice)
        if checkpoint is None:
            return self.participants.create(name, choice)
        if choice.is_encoder:
            return self.participants.encoder(choice)
        return self.participants.load(name, choice, checkpoint)

    def _student(self, teacher: NetworkSpec | None) -> Checkpoint:
        """Create the student, normalised as the teacher; or load the weights it starts from, with their own."""
        choice = self.config.student
        if choice.checkpoint is None:
            return self.participants.create("student", choice, teacher)
        loaded = self.participants.load("student", choice, choice.checkpoint, to_train=True)
        spec = loaded.spec.model_copy(update=self.participants.of_the_data(choice))
        return Checkpoint(loaded.module, spec, loaded.path)

    def _weigh_classes(self) -> None:
        if self.config.weigh_classes and not self.settings.class_weights:
            pixels = self._dataset("train", self.sides["student"]).pixels(self.control.check)
            weights = median_frequency_weights(pixels)
            self.settings = self.settings.model_copy(update={"class_weights": weights})
            named = zip(self.collection.classes, weights, strict=True)
            self.emit(
                Message(f"In the cross entropy {', '.join(f'{name} counts {w:.2g}' for name, w in named)}.")
            )

    # -- training -------------------------------------------------------------------------------------------------

    def _plan(self, teachers: list[Checkpoint], student: Checkpoint) -> None:
        """Build all stages once before the first is trained: what does not fit together fails now, not in an hour."""
        # An encoder may have a thousand million weights, and nothing here changes them.
        copies = [copy.deepcopy(teacher) if teacher.spec.segments else teacher for teacher in teachers]
        stages = self._stages(copies, copy.deepcopy(student))
        untrained = [
            name for name, t in zip(self.config.teachers, teachers, strict=True) if self._is_trained(name, t)
        ]
        names = [f"{name.replace('_', ' ')} ({self.config.teacher_epochs} epochs)" for name in untrained]
        names += [f"{stage.title.lower()} ({self._epochs(stage)} epochs)" for stage in stages]
        for sentence in self.method.caution(len(self.collection.classes), self.config.batch_size):
            self.emit(Message(sentence, "warning"))
        batches = batch_count(len(self.workplace.train), self.config.batch_size)
        self.emit(Message(f"On {self._devices()}, {batches} batches an epoch. Stages: {', '.join(names)}."))

    def _devices(self) -> str:
        if self.ours.count == 1:
            return _device_name(self.fabric)
        return f"{self.ours.count} processes, each on {_device_name(self.fabric)}"

    def _stages(self, teachers: list[Checkpoint], student: Checkpoint) -> list[Stage]:
        """Build the stages; batches of the student's are as large as the network that sees most, normalised for it."""
        side = max(self.sides.values())
        given = (student.spec.mean, student.spec.std)
        sides = [self.sides[name] for name in self.config.teachers]
        return self.method.stages(
            [teacher.module for teacher in teachers],
            student.module,
            self.settings,
            seed=self.config.seed,
            sample_masks=self._dataset("train", self.sides["student"]).masks,
            input_shape=(self.collection.channels, side, side),
            views=[
                View(given, (teacher.spec.mean, teacher.spec.std), own / side)
                for teacher, own in zip(teachers, sides, strict=True)
            ],
            student_view=View(factor=self.sides["student"] / side),
        )

    def _epochs(self, stage: Stage) -> int:
        return max(1, round(self.config.epochs * stage.epochs_factor))

    def _is_trained(self, name: str, teacher: Checkpoint) -> bool:
        """Whether a teacher is trained here: it has no weights yet, or a head that has learnt nothing."""
        return self.config.teachers[name].checkpoint is None or bool(teacher.new_head)

    def _train_teacher(self, name: str, teacher: Checkpoint) -> None:
        """Train a teacher on the labels alone, or score the one given before anything is learnt from it."""
        side, title = self.sides[name], name.replace("_", " ").capitalize()
        if self._is_trained(name, teacher):
            weights = self.settings.model_dump(include=set(AloneSettings.model_fields))
            stage = StudentStage(teacher.module, AloneSettings(**weights))
            stage.name, stage.title = name, title
            self._train(stage, self.config.teacher_epochs, teacher.spec, side, side)
        elif teacher.spec.segments:
            self.networks[name] = (teacher.module, teacher.spec, side)
            kept = self.run_folder.network(name)
            if self.run_folder.writes and not kept.exists():
                self.emit(Checkpointed(save(kept, teacher.module, teacher.spec)))
            scores = self._evaluate(name, "val")
            tiles = len(self.collection.val)
            self.emit(
                Message(
                    f"The {title.lower()}'s Dice on the {tiles} validation tiles is {scores['dice']:.3f}."
                )
            )
        freeze(teacher.module)

    def _train(self, stage: Stage, epochs: int, spec: NetworkSpec, side: int, tiles: int) -> None:
        """Train a stage, go on with it, or take its weights where it was finished before.

        Its network sees images of ``side`` pixels, its batches hold tiles of ``tiles`` pixels.
        """
        self.workplace.train = self._dataset("train", tiles)
        self.workplace.val = self._dataset("val", side if segments(stage) else tiles)
        if stage.name in self.workplace.completed:
            load_weights(stage, spec, self.run_folder.network(stage.name))
        elif stage.name in self.config.trained_stages:
            load_weights(stage, spec, self.config.trained_stages[stage.name])
            self.emit(Message(f"{stage.title}: trained before."))
        else:
            ours = self.state is not None and self.state["stage"] == stage.name
            self.emit(Message(f"{stage.title}: {epochs} epochs."))
            with self._remembered(stage):
                fit(stage, epochs, spec, self.workplace, self.state if ours else None)
        if segments(stage):
            self.networks[stage.name] = (stage.network, spec, side)

    @contextmanager
    def _remembered(self, stage: Stage) -> Iterator[None]:
        """Let a student's teachers be remembered while it is trained, where that was asked for and can be done."""
        readers = [reader for reader in getattr(stage, "readers", []) if reader.network is not None]
        if not self.config.remember_teacher or not readers:
            yield
            return
        if self.ours.count > 1:
            self.emit(Message("The teacher is not remembered: that works with one process only.", "warning"))
            yield
            return
        if reason := changing_tiles(self.config, self.collection.train):
            self.emit(Message(f"The teacher is not remembered: {reason}.", "warning"))
            yield
            return
        shared = self.config.memory
        folder = self.run_folder.path / "remembered" if shared is None else shared
        with TeacherMemory(folder, self.emit, shared=shared is not None) as memory:
            for number, reader in enumerate(readers):
                reader.run_frozen = partial(memory.run_frozen, f"{number}")
            yield

    # -- after training -------------------------------------------------------------------------------------------

    def _evaluate(self, name: str, split: str, **options: Any) -> dict[str, float]:
        network, spec, side = self.networks[name]
        tiles, size = self._dataset(split, side), self.config.batch_size
        return evaluate(network, spec, tiles, self.fabric, size, self.control, **options)

    def _score(self) -> DistillResult:
        """Score the networks with the weights that are kept, and write report/: a summary, and a row a tile."""
        metrics: dict[str, dict[str, float]] = {}
        full = self.config.report == "full"
        for name in self.networks:
            metrics[name] = {}
            if not full and name != "student":
                continue
            for split in ("val", "test"):
                if tiles := [tile.name for tile in getattr(self.collection, split)]:
                    rows: list[dict[str, float]] = []
                    scores = self._evaluate(name, split, full=full, tiles=rows)
                    metrics[name] |= {f"{split}_{key}": value for key, value in scores.items()}
                    self.run_folder.write_tiles(f"{name}-{split}", tiles, rows)
        checkpoints = {name: self.run_folder.network(name) for name in self.networks}
        self.run_folder.write_report(
            {
                "method": self.config.method,
                "reference": self.method.reference,
                "settings": self.settings.model_dump(mode="json"),
                "tiles": self.collection.counts,
                "classes": self.collection.classes,
                "networks": {
                    name: {
                        "architecture": spec.architecture,
                        "parameters": sum(p.numel() for p in network.parameters()),
                        "metrics": metrics[name],
                    }
                    for name, (network, spec, _) in self.networks.items()
                },
            }
        )
        return DistillResult(self.run_folder.path, metrics, checkpoints)


def _device_name(fabric: Fabric) -> str:
    if fabric.device.type == "cuda":
        return torch.cuda.get_device_name(fabric.device)
    return f"the CPU ({torch.get_num_threads()} threads)"


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let torch use ``count`` CPU threads for a while; ``None``: its part of the processors this process may use.

    Said in any case, because torch keeps the number by thread: a run resumed in another one must add up alike.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count or max(1, _processors() // processes_here()))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
