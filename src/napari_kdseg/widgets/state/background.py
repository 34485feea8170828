"""Work off the GUI thread, and its news brought back to it.

Short work (opening a file, reading a checkpoint) goes through :func:`in_background`; long work is a job, and
:class:`JobHandle` passes its events on at most ten times a second.
"""

from __future__ import annotations

import traceback
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from napari.qt.threading import create_worker
from napari.utils.notifications import show_error
from qtpy.QtCore import QCoreApplication, QEventLoop, QObject, QThread, QTimer, Signal

from napari_kdseg.errors import explain
from napari_kdseg.jobs import (
    Cancelled,
    DeferredJob,
    Failed,
    RunningJob,
    Step,
    Terminal,
    start_in_process,
    start_in_thread,
)

REFRESH_MS = 100
_PENDING: set[Any] = set()


def in_background(
    function: Callable[[], Any],
    on_done: Callable[[Any], None],
    on_failed: Callable[[str], None] | None = None,
) -> None:
    """Call ``function`` in a thread, then ``on_done(result)`` or ``on_failed(sentence)`` in the GUI thread.

    A failure is a napari notification as well. A receiver whose widget was closed meanwhile is not called.
    """

    def report(sentence: str) -> None:
        show_error(sentence)
        if on_failed is not None:
            on_failed(sentence)

    def work() -> tuple[bool, Any]:
        try:
            return True, function()
        except Exception as error:
            traceback.print_exc()
            return False, explain(error)

    def deliver(outcome: tuple[bool, Any]) -> None:
        _PENDING.discard(worker)
        succeeded, value = outcome
        try:
            (on_done if succeeded else report)(value)
        except RuntimeError as error:
            if "deleted" not in str(error):
                raise

    worker = create_worker(work, _start_thread=False)
    worker.returned.connect(deliver)
    _PENDING.add(worker)
    worker.start()


def wait_for(function: Callable[[], Any]) -> Any:
    """Call ``function`` in a thread and return what it returns; the window is drawn meanwhile, but takes no input.

    For calls of napari's that need the result at once, such as a reader. Without a window ``function`` is just called.
    """
    application = QCoreApplication.instance()
    if application is None or QThread.currentThread() is not application.thread():
        return function()
    loop = QEventLoop()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(function)
        watch = QTimer()
        watch.timeout.connect(lambda: loop.quit() if future.done() else None)
        watch.start(5)
        loop.exec(QEventLoop.ProcessEventsFlag.ExcludeUserInputEvents)
        return future.result()


def emitting(receiver: QObject, signal: str, *first: Any) -> Callable[..., None]:
    """Return a function for other threads that emits ``signal`` of ``receiver``, with ``first`` and its own arguments.

    It keeps nothing alive, and does nothing once the receiver is gone.
    """
    there = weakref.ref(receiver)

    def tell(*arguments: Any) -> None:
        alive = there()
        if alive is None:
            return
        try:
            getattr(alive, signal).emit(*first, *arguments)
        except RuntimeError as error:  # the window was closed a moment ago
            if "deleted" not in str(error):
                raise

    return tell


def pending() -> bool:
    """Whether work given to :func:`in_background` has not come back yet."""
    return bool(_PENDING)


class JobHandle(QObject):
    """A running job as the window sees it; ``job`` is ``"module:function"``, imported where it runs.

    Signals
    -------
    events(list)
        Events since the last time, in order, in the GUI thread.
    ended(object)
        The terminal event.
    """

    events = Signal(list)
    ended = Signal(object)

    def __init__(
        self,
        kind: str,
        title: str,
        job: str,
        config: Any,
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
        self._queue: deque[Any] = deque()
        self.running = RunningJob()
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._drain)
        if begin:
            self.begin()

    def begin(self) -> None:
        """Start a job that was made with ``begin=False``."""
        self.waiting = False
        start = start_in_process if self._in_process else start_in_thread
        self.running = start(DeferredJob(self.job), self.config, self._queue.append)
        self._watch = _watch_for_closing(self.running, self.title)
        self._timer.start(REFRESH_MS)

    @property
    def alive(self) -> bool:
        """Whether the terminal event has not been delivered yet."""
        return self.waiting or self._timer.isActive()

    @property
    def history(self) -> list[Any]:
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
        self.worker: Any = None

    def __call__(self) -> None:
        while not self.running.join(0.1):
            if self.worker.abort_requested:
                self.running.control.cancel()

    def __repr__(self) -> str:
        return f"{self.title} (what is done so far is kept)"


def _watch_for_closing(running: RunningJob, title: str) -> Any:
    watch = _Watch(running, title)
    watch.worker = create_worker(watch, _start_thread=False)
    watch.worker.start()
    return watch.worker
