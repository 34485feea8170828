"""Where a job runs: in this thread, in a thread of its own, or in a process of its own.

A job is a callable ``job(config, emit, control) -> result``. Whatever it raises is caught here and becomes an
event: a ``RuntimeError`` (CUDA out-of-memory is one) would vanish in napari's own generator workers.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import sys
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from napari_kdseg.errors import explain
from napari_kdseg.jobs.control import Control, JobCancelled
from napari_kdseg.jobs.events import Cancelled, Done, Event, Failed, Terminal
from napari_kdseg.memory import keep_memory

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

Emit = Callable[[Event], None]
Config = TypeVar("Config")
Job = Callable[[Config, Emit, Control], Any]
"""What is run, of a configuration; what it returns is the result of :class:`Done`."""


class DeferredJob:
    """A job named by where it is defined, imported in the thread or process that runs it.

    Parameters
    ----------
    name
        ``"module:function"``.
    """

    def __init__(self, name: str):
        self.name = name

    def __call__(self, config: object, emit: Emit, control: Control) -> Any:
        """Import the job and run it."""
        module, _, function = self.name.partition(":")
        return getattr(importlib.import_module(module), function)(config, emit, control)


def run_job(job: Job[Config], config: Config, emit: Emit, control: Control) -> Terminal:
    """Run ``job`` here and now; exactly one terminal event is emitted and returned."""
    end: Terminal
    try:
        control.check()
        end = Done(job(config, emit, control))
    except JobCancelled:
        end = Cancelled()
    except Exception as error:
        end = Failed(explain(error), traceback.format_exc(), type(error).__name__)
    free_memory()
    emit(end)
    return end


def free_memory() -> None:
    """Give memory that the job held back to the GPU, where there is one and torch was used at all."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


class RunningJob:
    """A started job: its history of events, its observers, its switches.

    Observers are called in the job's thread. One that raises is reported on stderr and does not disturb the job.
    """

    def __init__(self) -> None:
        self.history: list[Event] = []
        self.end: Terminal | None = None
        self.control: Control = Control(self.emit)
        self._observers: list[Emit] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether no terminal event was seen yet."""
        return self.end is None

    def observe(self, observer: Emit) -> list[Event]:
        """Call ``observer`` with every event from now on; return those it missed."""
        with self._lock:
            self._observers.append(observer)
            return list(self.history)

    def emit(self, event: Event) -> None:
        """Keep ``event`` and pass it to every observer."""
        with self._lock:
            self.history.append(event)
            if isinstance(event, Terminal):
                self.end = event
            observers = list(self._observers)
        for observer in observers:
            try:
                observer(event)
            except Exception:
                traceback.print_exc()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end; return whether the job ended in time."""
        if self._thread is not None:
            self._thread.join(timeout)
            return not self._thread.is_alive()
        return not self.running


def start_in_thread(job: Job[Config], config: Config, observer: Emit | None = None) -> RunningJob:
    """Start ``job`` in a plain thread of its own (the default: CUDA and torch release the GIL)."""
    running = RunningJob()
    if observer is not None:
        running.observe(observer)
    running._thread = threading.Thread(
        target=run_job, args=(job, config, running.emit, running.control), name="kdseg-job", daemon=True
    )
    running._thread.start()
    return running


def run_inline(job: Job[Config], config: Config, observer: Emit | None = None) -> RunningJob:
    """Run ``job`` here and return when it has ended (command line and tests)."""
    running = RunningJob()
    if observer is not None:
        running.observe(observer)
    run_job(job, config, running.emit, running.control)
    return running


def start_in_process(job: Job[Config], config: Config, observer: Emit | None = None) -> RunningJob:
    """Start ``job`` in a spawned process, which gives GPU memory back for certain when it ends.

    ``job``, ``config`` and the result must be picklable. A process that dies without a last word is a failure.
    """
    context = multiprocessing.get_context("spawn")
    running = RunningJob()
    running.control = Control(make_event=context.Event, make_view=lambda: context.Array("d", 5))
    if observer is not None:
        running.observe(observer)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_child, args=(job, config, sender, running.control), name="kdseg-job", daemon=True
    )
    process.start()
    sender.close()

    def pump() -> None:
        with contextlib.suppress(EOFError):
            while True:
                running.emit(receiver.recv())
        process.join()
        if running.running:
            running.emit(
                Failed(f"The process of this job ended unexpectedly (exit code {process.exitcode}).")
            )

    running._thread = threading.Thread(target=pump, name="kdseg-job-events", daemon=True)
    running._thread.start()
    return running


def _child(job: Job[Config], config: Config, sender: Connection, control: Control) -> None:
    control._emit = sender.send
    keep_memory()
    run_job(job, config, sender.send, control)
    sender.close()
