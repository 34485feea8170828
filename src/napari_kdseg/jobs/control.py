"""The other direction: how a job is asked to pause or to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from napari_kdseg.jobs.events import Event, Paused, Resumed

Region = tuple[float, float, float, float]


class Switch(Protocol):
    """What is asked of ``threading.Event``, and of the event of a ``multiprocessing`` context."""

    def is_set(self) -> bool: ...  # noqa: D102
    def set(self) -> None: ...  # noqa: D102
    def clear(self) -> None: ...  # noqa: D102
    def wait(self) -> bool: ...  # noqa: D102


class Numbers(Protocol):
    """What is asked of a list, and of the shared array of a ``multiprocessing`` context."""

    def __getitem__(self, part: slice, /) -> list[float]: ...
    def __setitem__(self, part: slice, values: Iterable[float], /) -> None: ...


class JobCancelled(Exception):
    """Raised by :meth:`Control.check` inside the job; a job may catch it to save, then re-raises it."""


def _unheard(event: Event) -> None:
    """Take an event that nobody listens to (a function with a name, so that a control can be pickled)."""


def _nowhere() -> list[float]:
    return [0.0] * 5


class Control:
    """Switches that observers set and the job looks at after every batch or tile.

    Parameters
    ----------
    emit
        Receives :class:`Paused` and :class:`Resumed`.
    make_event
        Makes the two switches: ``threading.Event``, or that of a ``multiprocessing`` context.
    make_view
        Makes the place where four numbers and their validity are kept: a list, or a shared array.
    """

    def __init__(
        self,
        emit: Callable[[Event], None] = _unheard,
        make_event: Callable[[], Switch] = threading.Event,
        make_view: Callable[[], Numbers] = _nowhere,
    ):
        self._emit = emit
        self._cancel = make_event()
        self._go = make_event()
        self._go.set()
        self._view = make_view()

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

    @property
    def view(self) -> Region | None:
        """What somebody looks at, ``(y, x, height, width)``: work there comes first. ``None``: nobody looks."""
        known, y, x, height, width = self._view[:]
        return (y, x, height, width) if known else None

    def look_at(self, view: Region | None) -> None:
        """Tell the job what is looked at, ``(y, x, height, width)`` in level-0 pixels; it may follow."""
        self._view[:] = (0.0,) * 5 if view is None else (1.0, *view)

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
