"""What a job says while it runs: small frozen records, the only thing its observers know of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Event:
    """Anything a job reports."""


@dataclass(frozen=True)
class Started(Event):
    """The work began. ``total`` steps are expected, if that is known."""

    title: str
    total: int | None = None


@dataclass(frozen=True)
class Step(Event):
    """One batch or one tile was finished.

    ``stage`` names the part of the job (``"student"``, ``"teacher"``), ``done`` of ``total`` count its steps,
    and ``values`` holds the figures of this step (loss terms, images a second).
    """

    stage: str
    done: int
    total: int
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Validated(Event):
    """One epoch of a stage was scored on the validation set."""

    stage: str
    epoch: int
    epochs: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Checkpointed(Event):
    """A file from which the job can go on, or which can be used, is safely on disk."""

    path: Path


@dataclass(frozen=True)
class Message(Event):
    """A sentence for the log."""

    text: str
    level: Literal["info", "warning"] = "info"


@dataclass(frozen=True)
class Paused(Event):
    """The job waits until it is resumed or cancelled."""


@dataclass(frozen=True)
class Resumed(Event):
    """The job goes on after a pause."""


@dataclass(frozen=True)
class Terminal(Event):
    """The last event of a job: exactly one of :class:`Done`, :class:`Cancelled`, :class:`Failed`."""


@dataclass(frozen=True)
class Done(Terminal):
    """The job finished; ``result`` is what its function returned."""

    result: Any = None


@dataclass(frozen=True)
class Cancelled(Terminal):
    """The job stopped because it was asked to; everything finished so far is on disk."""


@dataclass(frozen=True)
class Failed(Terminal):
    """The job stopped on an error: ``message`` in plain words, ``details`` the traceback, ``error`` its class."""

    message: str
    details: str = ""
    error: str = ""
