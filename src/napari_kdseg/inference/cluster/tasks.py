"""What runs on a worker. Only settings travel there, and only counts and sentences come back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dask.distributed import Variable, get_worker

from napari_kdseg.errors import KdsegError
from napari_kdseg.inference.config import PredictConfig
from napari_kdseg.inference.network.engine import choose_device
from napari_kdseg.inference.prediction import begin, predict, predict_slab
from napari_kdseg.jobs import Control, Emit, Event, JobCancelled, Message, Step
from napari_kdseg.masks.disk import InUseError
from napari_kdseg.masks.writing.slabs import Slab
from napari_kdseg.memory import keep_memory

#: Seconds for which a mask that another worker still holds, perhaps one that was lost from sight, is waited for.
PATIENCE = 120.0
#: Seconds between two looks at what the client wants, and between two reports of progress.
INTERVAL = 1.0


@dataclass
class Outcome:
    """How a task ended.

    Attributes
    ----------
    result
        What the job returned; ``None`` if it did not get there.
    failure
        In a sentence, why it cannot be done; doing it again would end alike.
    cancelled
        Whether it was stopped by its client.
    messages
        What the job said.
    """

    result: Any = None
    failure: str | None = None
    cancelled: bool = False
    messages: list[Message] = field(default_factory=list)


def run_begin(config: PredictConfig, orders: str) -> Outcome:
    """Make the masks of a slide, and settle how they are predicted."""
    return _run(lambda emit, control: begin(_for_here(config), emit, control), orders)


def run_slab(config: PredictConfig, slab: Slab, orders: str) -> Outcome:
    """Predict a slab of a mask that was begun."""
    return _run(
        lambda emit, control: _patiently(predict_slab, _for_here(config), slab, emit, control), orders
    )


def run_slide(config: PredictConfig, orders: str, topic: str | None = None) -> Outcome:
    """Predict a whole slide, or what is left of it, and finish its masks; ``topic`` hears how far it is."""
    return _run(lambda emit, control: _patiently(predict, _for_here(config), emit, control), orders, topic)


class Orders(Control):
    """The switches of a job whose client is elsewhere: looked at once a second, over the network.

    Parameters
    ----------
    name
        Of the dask variable that holds ``"go"``, ``"pause"`` or ``"stop"``.
    """

    def __init__(self, name: str):
        super().__init__()
        self._variable = Variable(name)
        self._looked_at = -INTERVAL

    def check(self) -> None:
        """Look what the client wants; wait here while it pauses.

        Raises
        ------
        JobCancelled
            If it wants to stop.
        """
        if time.monotonic() - self._looked_at > INTERVAL:
            while (wanted := self._variable.get(timeout=60)) == "pause":
                time.sleep(INTERVAL)
            self._looked_at = time.monotonic()
            if wanted == "stop":
                self.cancel()
        super().check()


class _Listener:
    """Keeps what a job says, and passes on how far it is."""

    def __init__(self, topic: str | None):
        self.messages: list[Message] = []
        self._topic = topic
        self._told_at = -INTERVAL

    def receive(self, event: Event) -> None:
        if isinstance(event, Message):
            self.messages.append(event)
        elif isinstance(event, Step) and self._topic is not None:
            self._tell(event, self._topic)

    def _tell(self, step: Step, topic: str) -> None:
        if step.done == step.total or time.monotonic() - self._told_at > INTERVAL:
            self._told_at = time.monotonic()
            get_worker().log_event(topic, {"stage": step.stage, "done": step.done, "total": step.total})


def _run(job: Callable[[Emit, Control], Any], orders: str, topic: str | None = None) -> Outcome:
    if get_worker().nanny is not None:  # then this process is the worker's alone
        keep_memory()
    listener = _Listener(topic)
    control = Orders(orders)
    try:
        control.check()
        return Outcome(job(listener.receive, control), messages=listener.messages)
    except JobCancelled:
        return Outcome(cancelled=True, messages=listener.messages)
    except KdsegError as error:  # anything else is for dask to try again
        return Outcome(failure=str(error), messages=listener.messages)


def _for_here(config: PredictConfig) -> PredictConfig:
    """Fill in how many threads compute where nobody said so: on processors, the one that dask counts for a task."""
    if config.threads is None and choose_device(config.device).type == "cpu":
        return config.model_copy(update={"threads": 1})
    return config


def _patiently(job: Callable[..., Any], *arguments: Any) -> Any:
    """Run a job, again and again while a worker that was given up still writes what it is about to."""
    until = time.monotonic() + PATIENCE
    control: Control = arguments[-1]
    while True:
        try:
            return job(*arguments)
        except InUseError:
            if time.monotonic() > until:
                raise
            control.check()
            time.sleep(INTERVAL)
