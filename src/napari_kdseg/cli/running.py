"""A job in the terminal: its progress, its messages, and a good end on Ctrl-C."""

from __future__ import annotations

import sys
import threading
from typing import Any

from pydantic import BaseModel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from napari_kdseg.cli import processes
from napari_kdseg.cli.app import console
from napari_kdseg.errors import KdsegError
from napari_kdseg.jobs import (
    Done,
    Emit,
    Event,
    Failed,
    Job,
    Message,
    RunningJob,
    Step,
    Validated,
    start_in_thread,
)
from napari_kdseg.memory import keep_memory


def run(job: Job, config: BaseModel, *, resumable: bool = True) -> Any:
    """Run ``job`` with bars of its progress in the terminal; return its result."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
        console=console,
        transient=True,
        disable=processes.number() > 0,
    ) as progress:
        running = to_its_end(job, config, _Display(progress).show, resumable=resumable)
    return result_of(running, resumable=resumable)


def to_its_end(job: Job, config: BaseModel, show: Emit, *, resumable: bool = True) -> RunningJob:
    """Run ``job`` in a thread, tell ``show`` its events, and stop it in good order on Ctrl-C."""
    keep_memory()
    running = start_in_thread(job, config, show)
    processes.heed_terminate(running.control.cancel)
    try:
        while not running.join(0.2):
            pass
    except KeyboardInterrupt:
        kept = "what is done is kept" if resumable else "nothing half-written stays"
        if not processes.number():
            console.print(f"Stopping after this step; {kept} …")
        running.control.cancel()
        running.join()
    return running


def result_of(ended: RunningJob, *, resumable: bool = True) -> Any:
    """Return what a job came to; one that was stopped ends the command."""
    if isinstance(ended.end, Failed):
        raise KdsegError(ended.end.message)
    if not isinstance(ended.end, Done):
        if not processes.number():
            console.print("Stopped. The same command goes on from here." if resumable else "Stopped.")
        sys.exit(130)
    return ended.end.result


class _Display:
    """Puts a job's events on the terminal: a bar a stage, a line a message."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.bars: dict[str, Any] = {}
        self.lock = threading.Lock()

    def show(self, event: Event) -> None:
        with self.lock:
            if isinstance(event, Step):
                self._step(event)
            elif isinstance(event, Message):
                console.print(
                    event.text, style="yellow" if event.level == "warning" else None, highlight=False
                )
            elif isinstance(event, Validated):
                scores = ", ".join(
                    f"{name} {value:.4f}" for name, value in event.metrics.items() if "/" not in name
                )
                console.print(f"{event.stage}, epoch {event.epoch}/{event.epochs}: {scores}", highlight=False)

    def _step(self, event: Step) -> None:
        if event.stage not in self.bars:
            self.bars[event.stage] = self.progress.add_task(event.stage.replace("_", " "), figures="")
        figures = " ".join(f"{name} {value:.3g}" for name, value in list(event.values.items())[:4])
        self.progress.update(self.bars[event.stage], completed=event.done, total=event.total, figures=figures)
