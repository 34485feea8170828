"""A job as the window sees it: its events brought to the GUI thread at most ten times a second."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from napari.qt.threading import create_worker
from napari.utils.notifications import show_error
from pydantic import BaseModel
from qtpy.QtCore import QObject, QTimer, Signal

from napari_kdseg.jobs import (
    Cancelled,
    DeferredJob,
    Event,
    Failed,
    RunningJob,
    Step,
    Terminal,
    start_in_process,
    start_in_thread,
)
from napari_kdseg.memory import keep_memory
from napari_kdseg.widgets.state.preferences import preferences

REFRESH_MS = 100
Config = TypeVar("Config", bound=BaseModel)


class JobHandle(QObject, Generic[Config]):
    """A running job; ``job`` is ``"module:function"``, imported where it runs.

    Signals
    -------
    events(list of Event)
        Events since the last time, in order, in the GUI thread.
    ended(Terminal)
        The terminal event.
    """

    events = Signal(list)
    ended = Signal(object)

    def __init__(
        self,
        kind: str,
        title: str,
        job: str,
        config: Config,
        *,
        in_process: bool = False,
        parent: QObject | None = None,
        begin: bool = True,
    ):
        super().__init__(parent)
        self.kind = kind
        self.title = title
        self.job = job
        self.config = config
        self.latest: Step | None = None
        self.waiting = True
        self._in_process = in_process
        self._queue: deque[Event] = deque()
        self.running = RunningJob()
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._drain)
        if begin:
            self.begin()

    def begin(self) -> None:
        """Start a job that was made with ``begin=False``."""
        self.waiting = False
        if preferences().keep_memory:
            keep_memory()
        start = start_in_process if self._in_process else start_in_thread
        self.running = start(DeferredJob(self.job), self.config, self._queue.append)
        self._watch = _Watch(self.running, self.title)
        self.destroyed.connect(
            self.running.control.cancel
        )  # with its window or its dock: nobody waits for it
        self._timer.start(REFRESH_MS)

    @property
    def alive(self) -> bool:
        """Whether the terminal event has not been delivered yet."""
        return self.waiting or self._timer.isActive()

    @property
    def history(self) -> list[Event]:
        """Every event so far, for a dock that opens late."""
        return list(self.running.history)

    def pause_or_resume(self) -> None:
        """Pause a working job, wake a paused one."""
        control = self.running.control
        (control.resume if control.paused else control.pause)()

    def cancel(self) -> None:
        """Ask the job to stop; it ends after the current batch or tile, with everything so far on disk."""
        self.running.control.cancel()
        if self.waiting:
            self.waiting = False
            self.ended.emit(Cancelled())

    def _drain(self) -> None:
        batch = [self._queue.popleft() for _ in range(len(self._queue))]
        if not batch:
            return
        steps = [event for event in batch if isinstance(event, Step)]
        if steps:
            self.latest = steps[-1]
        end = next((event for event in batch if isinstance(event, Terminal)), None)
        if end is not None:
            self._timer.stop()
        self.events.emit(batch)
        if end is not None:
            if isinstance(end, Failed) and end.error != "InTheWayError":
                show_error(f"{self.title}: {end.message}")
            self.ended.emit(end)


class _Watch:
    """Keeps a napari worker alive as long as the job: the window then asks before closing, and stops the job."""

    def __init__(self, running: RunningJob, title: str):
        self.running = running
        self.title = title
        self.worker = create_worker(self, _start_thread=False)
        self.worker.start()

    def __call__(self) -> None:
        while not self.running.join(0.1):
            if self.worker.abort_requested:
                self.running.control.cancel()

    def __repr__(self) -> str:
        return f"{self.title} (what is done so far is kept)"
