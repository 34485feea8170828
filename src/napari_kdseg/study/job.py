"""The study as a job: plans the runs, trains what is not done yet, several at once where there are several GPUs.

Stopped or killed at any moment it goes on: finished runs are rows of the table, a half run resumes from its checkpoint.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from napari_kdseg.errors import DataError, KdsegError, OutputError
from napari_kdseg.files import write_whole
from napari_kdseg.jobs import (
    Control,
    Done,
    Emit,
    Event,
    Failed,
    JobCancelled,
    Message,
    Paused,
    Resumed,
    RunningJob,
    Started,
    Step,
    Validated,
    start_in_process,
    start_in_thread,
)
from napari_kdseg.study.config import LISTS, StudyConfig
from napari_kdseg.study.networks import KeptNetworks
from napari_kdseg.study.plan import TEACHER, Places, Run, distillation, network_name, plan, slug
from napari_kdseg.study.report.evidence import write_evidence
from napari_kdseg.study.results import finished, score_given
from napari_kdseg.study.shares import kinds, share, write_share
from napari_kdseg.study.table import Table, TableRow
from napari_kdseg.study.telling import Telling
from napari_kdseg.training import DataConfig, DistillConfig, distill
from napari_kdseg.training.lock import locked
from napari_kdseg.training.tiles.data import TileCollection, discover

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class StudyResult:
    """What a study has so far.

    Attributes
    ----------
    folder
        Folder of the table.
    done, planned
        Runs of this study that are finished, and all of them.
    pages
        The report of what is there.
    """

    folder: Path
    done: int
    planned: int
    pages: tuple[Path, ...] = ()


def study(config: StudyConfig, emit: Emit, control: Control) -> StudyResult:
    """Run all that is not done of a study; a job for :mod:`napari_kdseg.jobs`.

    Parameters
    ----------
    config
        What to compare. If ``config.output`` holds the table of the same study, it goes on.
    emit
        Receives the messages of the runs, and :class:`StudyProgress`.
    control
        Looked at all the time; what is cancelled goes on from there.

    Raises
    ------
    KdsegError
        If data, settings or folders do not work, or a run failed; all others are finished before that is said.
    """
    emit(Started("Study"))
    try:
        config.work_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {config.work_folder} cannot be made. {error.strerror}.") from error
    with locked(config.work_folder / ".lock"):
        return _Study(config, emit, control).run()


@dataclass(frozen=True)
class OneRun:
    """A distillation and the GPU it has for itself, where there are several."""

    config: DistillConfig
    gpu: int | None = None


def distill_alone(task: OneRun, emit: Emit, control: Control) -> object:
    """Run a distillation in a process of its own; a job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the study, which tells its runs to stop
    if task.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(task.gpu)  # before CUDA is asked for anything
    return distill(task.config, emit, control)


@dataclass
class _Running:
    """A run that goes on now."""

    job: RunningJob
    slot: int
    config: DistillConfig
    makes: set[Path]
    events: deque[Event] = field(default_factory=deque)


class _Study:
    def __init__(self, config: StudyConfig, emit: Emit, control: Control):
        self.config, self.emit, self.control = config.anchored(Path.cwd()), emit, control
        self.places = Places(self.config.work_folder)
        self.table = Table(self.config.output)
        self.runs = plan(self.config)
        self.telling = Telling(self.runs, emit)
        self.networks = KeptNetworks(self.config, self.places, self.runs)
        self.running: dict[Run, _Running] = {}
        self.failures: dict[Run, str] = {}
        self.warned: set[str] = set()
        self.paused = False
        self.slots = self._slots()

    def run(self) -> StudyResult:
        self._keep_protocol()
        self.collection = self._discover()
        self.kinds = kinds(self.collection, self.control.check)
        self.tiles: dict[tuple[float, int], int] = {}
        waiting = self._waiting()
        self.telling.begin()
        started = 0
        try:
            while waiting or self.running:
                self._look()
                while (run := self._next(waiting)) is not None and started < (
                    self.config.limit or len(self.runs)
                ):
                    waiting.remove(run)
                    self._start(run)
                    started += 1
                if not self.running and not self.paused:
                    break
                time.sleep(POLL_SECONDS)
        except BaseException:
            self._stop_all()
            raise
        self.telling.tell(always=True)
        self._complain()
        done = sum(run in self.table.done for run in self.runs)
        if done == len(self.runs):
            shutil.rmtree(self.places.work / "memory", ignore_errors=True)
        pages = write_evidence(self.config.output) if self.table.rows else []
        return StudyResult(self.config.output, done, len(self.runs), tuple(pages))

    # -- before -----------------------------------------------------------------------------------------------------

    def _keep_protocol(self) -> None:
        """Write down what all runs of the task share, and refuse to mix runs that do not share it."""
        path = protocol_file(self.config.output, self.config.task)
        mine = self.config.protocol()
        if path.is_file() and self.table.rows:
            theirs = json.loads(path.read_text(encoding="utf-8"))
            different = [name for name in mine if mine[name] != theirs.get(name)]
            if different:
                raise OutputError(
                    f"The folder {self.config.output} holds runs of '{self.config.task}' with other settings "
                    f"({', '.join(different)}), which cannot be compared with these. Choose another folder or another "
                    f"name for the task, or bring the settings back. Only {', '.join(LISTS)} may grow."
                )
        write_whole(path, (json.dumps(mine, indent=2) + "\n").encode())

    def _discover(self) -> TileCollection:
        collection = discover(self.config.data, self.control.check)
        for message in collection.messages:
            self.emit(Message(message, "warning"))
        counts = collection.counts
        for split, name in (("val", "validation"), ("test", "test")):
            if not counts[split]:
                raise DataError(
                    f"There are no {name} tiles, without which nothing can be compared. Give some the split '{split}' "
                    f"in manifest.csv, or set data.{name}_fraction."
                )
        self.emit(
            Message(
                f"{len(self.runs)} runs, {sum(run in self.table.done for run in self.runs)} of them done. "
                f"{counts['train']} tiles for training, {counts['val']} for validation, {counts['test']} for the test; "
                f"classes: {', '.join(collection.classes)}."
            )
        )
        return collection

    def _waiting(self) -> list[Run]:
        """List what is not done, and mark in the progress what is."""
        rows = {row.run: row for row in self.table.rows}
        done = set(rows)
        for run in self.runs:
            if run in rows:
                self.telling.note(run, status="done", share=1.0, test_dice=rows[run].test_dice)
                self.networks.tidy(run, done)
        return [run for run in self.runs if run not in rows]

    def _slots(self) -> list[int | None]:
        """One entry for each run at a time: its GPU, or ``None`` where there is nothing to divide."""
        gpus = torch.cuda.device_count() if self.config.device != "cpu" else 0
        count = self.config.at_once or max(1, gpus)
        if multiprocessing.current_process().daemon:  # such a process may start no others
            count = 1
        return [number % gpus if gpus > 1 else None for number in range(count)]

    def _data(self, run: Run) -> DataConfig:
        """Return the share of the tiles that a run sees, written as a manifest."""
        fraction, seed = run.label_fraction, run.seed
        path = self.places.share(run.task, fraction, seed)
        train = share(self.collection.train, self.kinds, fraction, seed)
        self.tiles[fraction, seed] = len(train)
        if len(train) < 2:
            raise DataError(
                f"{fraction:.0%} of the training tiles is only one tile. Take a larger label fraction."
            )
        write_share(path, self.collection, train)
        data = self.config.data
        return data.model_copy(update={"manifest": path, "classes": self.collection.classes, "limit": None})

    # -- runs -------------------------------------------------------------------------------------------------------

    def _next(self, waiting: list[Run]) -> Run | None:
        """Return the next run that can start: its teacher is there, and nobody is training a stage it could take."""
        free = len(self.slots) - len(self.running)
        if not free or self.paused:
            return None
        making = set().union(*(running.makes for running in self.running.values()))
        for run in waiting:
            if run.teacher and run.method != TEACHER and not self._teacher_is_there(run):
                continue
            if self.networks.missing(run) & making:
                continue
            return run
        return None

    def _teacher_is_there(self, run: Run) -> bool:
        return any(other.method == TEACHER and other.teacher == run.teacher for other in self.table.done)

    def _start(self, run: Run) -> None:
        given = next((c for c in self.config.teachers if network_name(c) == run.student), None)
        self.telling.note(run, status="running")
        data = self._data(run)
        if run.method == TEACHER and given is not None and given.checkpoint is not None:
            self._keep(*score_given(self.config, run, given, data, self.emit, self.control))
            return
        stages = {name: path for name, path in self.networks.stages(run).items() if path.exists()}
        tiles = self.tiles[run.label_fraction, run.seed]
        config = distillation(self.config, run, data, tiles, self.places, stages)
        alone = len(self.slots) == 1
        slot = next(n for n in range(len(self.slots)) if all(r.slot != n for r in self.running.values()))
        if self.config.device != "cuda" and not torch.cuda.is_available():
            together = 1 if run.method == TEACHER and len(self.config.teachers) == 1 else len(self.slots)
            config.threads = self.config.threads or max(1, (os.cpu_count() or 1) // together)
        self._forget_other(config)
        running = _Running(RunningJob(), slot, config, self.networks.missing(run))
        if alone:
            running.job = start_in_thread(distill, config, running.events.append)
        else:
            task = OneRun(config, self.slots[slot])
            running.job = start_in_process(distill_alone, task, running.events.append)
        self.running[run] = running
        self.telling.tell(always=True)

    def _forget_other(self, config: DistillConfig) -> None:
        """Take away a half run that was begun with other settings, before the first row of this study."""
        begun = config.output / "config.json"
        if begun.is_file() and config.differences(DistillConfig.load(begun)):
            shutil.rmtree(config.output)

    def _look(self) -> None:
        """Pass pause and cancel on, take in what the runs say, and finish those that ended."""
        if self.control.cancelled:
            raise JobCancelled
        if self.control.paused != self.paused:
            self.paused = self.control.paused
            self.emit(Paused() if self.paused else Resumed())
            for running in self.running.values():
                (running.job.control.pause if self.paused else running.job.control.resume)()
        for run, running in list(self.running.items()):
            ended = running.job.end is not None
            while running.events:
                self._take_in(run, running.events.popleft())
            if ended:
                running.job.join()
                del self.running[run]
                self._finish(run, running)
        self.telling.tell()

    def _take_in(self, run: Run, event: Event) -> None:
        if isinstance(event, Step):
            whole = self.telling.states[run].share
            if event.stage == "student":
                whole = event.done / event.total
            self.telling.note(run, stage=event.stage, share=whole)
        elif isinstance(event, Validated) and event.stage == "student":
            before = self.telling.states[run].val_dice or 0.0
            self.telling.note(run, val_dice=max(before, event.metrics.get("val_dice", 0.0)))
        elif isinstance(event, Message) and event.level == "warning":
            self._warn(run, event.text)

    def _warn(self, run: Run, text: str) -> None:
        """Pass on what a run warns of, once; that tiles are not in its share is as it should be."""
        if (
            self.places.share(run.task, run.label_fraction, run.seed).name not in text
            and text not in self.warned
        ):
            self.warned.add(text)
            self.emit(Message(f"{run.title}: {text}", "warning"))

    def _finish(self, run: Run, running: _Running) -> None:
        end = running.job.end
        if isinstance(end, Failed):
            self.failures[run] = end.message
            self.telling.note(run, status="failed")
            self.emit(Message(f"{run.title}: {end.message}", "warning"))
            if run.method == TEACHER:
                self._complain()
        elif isinstance(end, Done):
            self.networks.keep(run)
            self._keep(*finished(run, running.config, self.networks.stages(run)))
            self.networks.tidy(run, self.table.done)
        else:
            raise JobCancelled

    def _keep(self, row: TableRow, classes: Mapping[str, float], images: Mapping[str, float]) -> None:
        """Write the row of a finished run."""
        self.table.append(row, classes, images)
        self.telling.note(row.run, status="done", share=1.0, stage="", test_dice=row.test_dice)
        self.telling.tell(always=True)
        self.emit(Step("runs", self.telling.done, len(self.runs)))

    def _complain(self) -> None:
        if self.failures:
            run, sentence = next(iter(self.failures.items()))
            others = len(self.failures) - 1
            more = "" if not others else f" and {others} more"
            raise KdsegError(
                f"This run did not work{more}: {run.title}. {sentence} Finished runs are kept; the same "
                "command goes on."
            )

    def _stop_all(self) -> None:
        for running in self.running.values():
            running.job.control.cancel()
        for running in self.running.values():
            running.job.join()


def protocol_file(folder: Path, task: str) -> Path:
    """File of what all runs of a task share."""
    return folder / f"protocol-{slug(task)}.json"
