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
class MethodState:
    """Where all runs of one method stand.

    Attributes
    ----------
    method
        Its name.
    done, planned
        Runs.
    test_dice
        Mean of the runs that are done; ``None`` where there is none.
    now
        What its runs do at the moment, for people.
    """

    method: str
    done: int
    planned: int
    test_dice: float | None
    now: str


@dataclass(frozen=True)
class StudyProgress(Event):
    """All runs of a study, in their order, and how many seconds are left (``None``: not known yet)."""

    runs: tuple[RunState, ...]
    seconds_left: float | None = None

    @property
    def done(self) -> int:
        """How many runs are finished."""
        return sum(run.status == "done" for run in self.runs)

    def by_method(self) -> list[MethodState]:
        """Sum up the runs of each method, in the order of the study."""
        states = []
        for method in dict.fromkeys(run.method for run in self.runs):
            runs = [run for run in self.runs if run.method == method]
            scores = [run.test_dice for run in runs if run.status == "done" and run.test_dice is not None]
            mean = sum(scores) / len(scores) if scores else None
            now = "; ".join(_now(run) for run in runs if run.status in ("running", "failed"))
            done = sum(run.status == "done" for run in runs)
            states.append(MethodState(method, done, len(runs), mean, now))
        return states


def _now(run: RunState) -> str:
    if run.status == "failed":
        return "failed"
    dice = "" if run.val_dice is None else f", validation Dice {run.val_dice:.3f}"
    return f"{run.stage.replace('_', ' ') or 'starting'} {run.share:.0%}{dice}"
