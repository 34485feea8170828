"""The other direction: how a job is asked to pause or to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from napari_kdseg.jobs.events import Event, Paused, Resumed


class JobCancelled(Exception):
    """Raised by :meth:`Control.check` inside the job; a job may catch it to save, then re-raises it."""


def _unheard(event: Event) -> None:
    """Take an event that nobody listens to (a function with a name, so that a control can be pickled)."""


class Control:
    """Switches that observers set and the job looks at after every batch or tile.

    Parameters
    ----------
    emit
        Receives :class:`Paused` and :class:`Resumed`.
    make_event
        Makes the two switches: ``threading.Event``, or that of a ``multiprocessing`` context.
    """

    def __init__(
        self,
        emit: Callable[[Event], None] = _unheard,
        make_event: Callable[[], Any] = threading.Event,
    ):
        self._emit = emit
        self._cancel = make_event()
        self._go = make_event()
        self._go.set()

    @property
    def cancelled(self) -> bool:
        """Whether the job was asked to stop."""
        return self._cancel.is_set()

    @property
    def paused(self) -> bool:
        """Whether the job was asked to wait."""
        return not self._go.is_set()

    def cancel(self) -> None:
        """Ask the job to stop at its next check; a paused job is woken for it."""
        self._cancel.set()
        self._go.set()

    def pause(self) -> None:
        """Ask the job to wait at its next check."""
        if not self.cancelled:
            self._go.clear()

    def resume(self) -> None:
        """Let a paused job go on."""
        self._go.set()

    def check(self) -> None:
        """Wait here while paused.

        Raises
        ------
        JobCancelled
            If the job was asked to stop.
        """
        if self.paused:
            self._emit(Paused())
            self._go.wait()
            if not self.cancelled:
                self._emit(Resumed())
        if self.cancelled:
            raise JobCancelled
