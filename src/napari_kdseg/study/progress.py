"""What a study says of its runs while it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from napari_kdseg.jobs import Event

Status = Literal["waiting", "running", "done", "failed"]


@dataclass(frozen=True)
class RunState:
    """Where one run stands.

    Attributes
    ----------
    title, method
        What it is.
    status, share
        What it does, and which share of its steps is done.
    stage
        What is trained at the moment.
    val_dice, test_dice
        The best score so far, and that of the end; ``None`` where there is none yet.
    """

    title: str
    method: str
    status: Status = "waiting"
    share: float = 0.0
    stage: str = ""
    val_dice: float | None = None
    test_dice: float | None = None


@dataclass(frozen=True)
class StudyProgress(Event):
    """All runs of a study, in their order, and how many seconds are left (``None``: not known yet)."""

    runs: tuple[RunState, ...]
    seconds_left: float | None = None

    @property
    def done(self) -> int:
        """How many runs are finished."""
        return sum(run.status == "done" for run in self.runs)
