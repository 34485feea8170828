"""Marks as they are made: they count at once, and are put on disk one after the other, off the GUI thread."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_kdseg.comparison.regions.table import Region
from napari_kdseg.comparison.review.file import Review
from napari_kdseg.comparison.review.marks import Entry, Mark, Verdict
from napari_kdseg.widgets.review.arrangement import VERDICTS
from napari_kdseg.widgets.state.background import emitting, in_background


class Marking(QObject):
    """The marks of one review.

    Parameters
    ----------
    parent
        Owner.
    reader
        Who marks.

    Signals
    -------
    changed(int)
        The mark of the region of this number is another one, or none any more.
    kept(), failed(str)
        All that was said is on disk; or why it is not.

    Attributes
    ----------
    said
        Of :func:`~napari_kdseg.widgets.review.arrangement.verdicts`, as it is now.
    """

    changed = Signal(int)
    kept = Signal()
    failed = Signal(str)

    def __init__(self, parent: QObject, reader: str):
        super().__init__(parent)
        self._reader = reader
        self.close()

    def open(self, review: Review | None, said: np.ndarray) -> None:
        """Go on with a review; without one nothing can be marked."""
        self.review, self.said = review, said
        self._writer = None if review is None else _Writer(review, self)

    def close(self) -> None:
        """Leave the review; what is still to be written is written."""
        self.open(None, np.zeros(0, np.uint8))

    @property
    def possible(self) -> bool:
        """Whether anything can be marked."""
        return self.review is not None

    @property
    def can_undo(self) -> bool:
        """Whether there is a mark to take back."""
        return self.review is not None and self.review.marks.undone() is not None

    @property
    def can_redo(self) -> bool:
        """Whether there is one to give again."""
        return self.review is not None and self.review.marks.redone() is not None

    def of(self, number: int) -> Mark | None:
        """Return the mark on the region of this number."""
        return None if self.review is None else self.review.marks.of(number)

    def say(self, region: Region, verdict: Verdict, comment: str) -> None:
        """Mark a region; what was said already is not said again."""
        before = self.of(region.number)
        if before is None or (before.mark, before.comment) != (verdict, comment):
            self._take(Mark.on(region, verdict, comment, self._reader), region.number)

    def undo(self) -> int | None:
        """Take the last mark back and return the number of its region."""
        return self._step(None if self.review is None else self.review.marks.undone())

    def redo(self) -> int | None:
        """Give the mark again that was taken back last, and return the number of its region."""
        return self._step(None if self.review is None else self.review.marks.redone())

    def _step(self, step: tuple[Entry, Mark] | None) -> int | None:
        if step is None:
            return None
        self._take(step[0], step[1].region)
        return step[1].region

    def _take(self, entry: Entry, number: int) -> None:
        if self.review is None or self._writer is None:
            return
        self.review.marks.take(entry)
        self._writer.write(entry)
        now = self.review.marks.of(number)
        self.said[number] = VERDICTS.index(Verdict.NONE if now is None else now.mark)
        self.changed.emit(number)


class _Writer:
    """Writes the entries of one review in their order."""

    def __init__(self, review: Review, marking: Marking):
        self._review = review
        self._on_kept, self._on_failed = emitting(marking, "kept"), emitting(marking, "failed")
        self._waiting: deque[Entry] = deque()
        self._running = False
        self._lock = threading.Lock()

    def write(self, entry: Entry) -> None:
        """Put an entry on disk as soon as those before it are there. Does not wait."""
        with self._lock:
            self._waiting.append(entry)
            start, self._running = not self._running, True
        if start:
            in_background(self._drain, lambda _drained: self._on_kept(), self._on_failed)

    def _drain(self) -> None:
        """Write until nothing waits; entries that come meanwhile need no window to be written."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._running = False
                    return
                entries = [*self._waiting]
                self._waiting.clear()
            try:
                self._review.keep(*entries)
            except BaseException:
                with self._lock:
                    self._running = False
                raise
