"""How far all runs of a study are, told to whoever observes it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from napari_kdseg.jobs import Emit
from napari_kdseg.study.plan import Run
from napari_kdseg.study.progress import RunState, StudyProgress

TELL_SECONDS = 0.5
"""How often observers are told, at most."""


class Telling:
    """Where every run stands, and when that was told last.

    Parameters
    ----------
    runs
        Of the study, in their order.
    emit
        Receives :class:`StudyProgress`.
    """

    def __init__(self, runs: Sequence[Run], emit: Emit):
        self.states = {run: RunState(run.title, run.method) for run in runs}
        self._emit = emit
        self._began, self._told = time.monotonic(), 0.0
        self._share_before = 0.0

    @property
    def done(self) -> int:
        """How many runs are finished."""
        return sum(state.status == "done" for state in self.states.values())

    def note(self, run: Run, **changes: object) -> None:
        """Change what is known of a run: fields of :class:`RunState` by name."""
        self.states[run] = replace(self.states[run], **changes)  # type: ignore[arg-type]

    def begin(self) -> None:
        """Take what was noted until now as done before this session."""
        self._share_before = self._share()
        self.tell(always=True)

    def tell(self, *, always: bool = False) -> None:
        """Tell how far all are, if that was not just done."""
        now = time.monotonic()
        if always or now - self._told > TELL_SECONDS:
            self._told = now
            self._emit(StudyProgress(tuple(self.states.values()), self._seconds_left()))

    def _share(self) -> float:
        return sum(state.share for state in self.states.values())

    def _seconds_left(self) -> float | None:
        """Estimate from the share of all runs that this session has done; ``None`` before it is enough."""
        share = self._share()
        progressed = share - self._share_before
        if progressed < 0.2:
            return None
        return (time.monotonic() - self._began) / progressed * (len(self.states) - share)
