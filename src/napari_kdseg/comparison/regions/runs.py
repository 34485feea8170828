"""Pixels of a block as runs along its rows, each with what is summed over its pixels.

Where two masks differ is a small part of a slide, so all that follows is done on runs, not on pixels. Sums are of whole
numbers: they are the same in whatever pieces they were added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class Parts:
    """Sets of pixels of one code each: runs, or what is known so far of connected components. One array a figure.

    Attributes
    ----------
    code
        What the pixels are.
    area
        How many.
    y0, x0, y1, x1
        Smallest box, the end excluded.
    sum_y, twice_sum_x
        Of the rows; of the columns, twice.
    gap, known
        Sum of what was measured of the pixels, and at how many it was known.
    deepest
        The largest of what was measured of them.
    first_y, first_x
        The first pixel in reading order.
    long, long_y, long_x
        Length of the longest run, and where it starts; of several, the first in reading order.
    """

    code: np.ndarray
    area: np.ndarray
    y0: np.ndarray
    x0: np.ndarray
    y1: np.ndarray
    x1: np.ndarray
    sum_y: np.ndarray
    twice_sum_x: np.ndarray
    gap: np.ndarray
    known: np.ndarray
    deepest: np.ndarray
    first_y: np.ndarray
    first_x: np.ndarray
    long: np.ndarray
    long_y: np.ndarray
    long_x: np.ndarray

    def __len__(self) -> int:
        return len(self.code)

    def take(self, kept: np.ndarray) -> Parts:
        """Return some of them, by bool or index."""
        return Parts(*(getattr(self, item.name)[kept] for item in fields(self)))


def together(many: Sequence[Parts]) -> Parts:
    """Return all of several sets of parts, in order."""
    return Parts(*(np.concatenate([getattr(part, item.name) for part in many]) for item in fields(Parts)))


def no_parts() -> Parts:
    """Return none."""
    return Parts(*(np.zeros(0, np.int64) for _ in fields(Parts)))


@dataclass(frozen=True)
class Runs:
    """Runs in reading order.

    Attributes
    ----------
    y, start, stop
        Row, first column, and the column after the last.
    code, gap, known, deepest
        As in :class:`Parts`.
    """

    y: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    code: np.ndarray
    gap: np.ndarray
    known: np.ndarray
    deepest: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def parts(self) -> Parts:
        """Return each run as a part of its own."""
        length = self.stop - self.start
        return Parts(
            code=self.code,
            area=length,
            y0=self.y,
            x0=self.start,
            y1=self.y + 1,
            x1=self.stop,
            sum_y=self.y * length,
            twice_sum_x=(self.start + self.stop - 1) * length,
            gap=self.gap,
            known=self.known,
            deepest=self.deepest,
            first_y=self.y,
            first_x=self.start,
            long=length,
            long_y=self.y,
            long_x=self.start,
        )


def no_runs() -> Runs:
    """Return none."""
    return Runs(*(np.zeros(0, np.int64) for _ in fields(Runs)))


def runs_of(
    where: np.ndarray,
    code: np.ndarray,
    width: int,
    *,
    corner: tuple[int, int] = (0, 0),
    gap: np.ndarray | None = None,
    depth: np.ndarray | None = None,
) -> Runs:
    """Put pixels of a block into runs of one code.

    Parameters
    ----------
    where
        Flat indices of the pixels in the block, in order.
    code
        Of each, whole numbers.
    width
        Columns of the block.
    corner
        ``(y, x)`` of the block.
    gap
        What is summed, one whole number a pixel, negative where it is not known.
    depth
        What is asked the largest of, one whole number a pixel.
    """
    if not len(where):
        return no_runs()
    begins = np.empty(len(where), bool)
    begins[0] = True
    np.not_equal(where[1:], where[:-1] + 1, out=begins[1:])
    begins[1:] |= code[1:] != code[:-1]
    rows = np.arange(where[0] // width + 1, where[-1] // width + 1)
    begins[np.searchsorted(where, rows * width)] = True
    first = np.flatnonzero(begins)
    length = np.diff(first, append=len(where))
    y, start = np.divmod(where[first], width)
    start += corner[1]
    nothing = np.zeros(len(first), np.int64)
    sums, known = (nothing, nothing) if gap is None else _sums(gap, first, length)
    return Runs(
        y=y + corner[0],
        start=start,
        stop=start + length,
        code=code[first].astype(np.int64),
        gap=sums,
        known=known,
        deepest=nothing if depth is None else np.maximum.reduceat(depth, first).astype(np.int64),
    )


def _sums(gap: np.ndarray, first: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of what is known in each run, and how much that is."""
    known = gap >= 0
    if known.all():
        return np.add.reduceat(gap, first, dtype=np.int64), length
    return np.add.reduceat(np.where(known, gap, 0), first, dtype=np.int64), np.add.reduceat(
        known, first, dtype=np.int64
    )


def in_reading_order(many: Sequence[Runs]) -> Runs:
    """Return the runs of blocks side by side as those of one block: in order, and whole where a border cut them."""
    columns = {
        item.name: np.concatenate([getattr(runs, item.name) for runs in many]) for item in fields(Runs)
    }
    order = np.lexsort((columns["start"], columns["y"]))
    runs = Runs(**{name: values[order] for name, values in columns.items()})
    if len(runs) < 2:
        return runs
    goes_on = (
        (runs.y[1:] == runs.y[:-1]) & (runs.start[1:] == runs.stop[:-1]) & (runs.code[1:] == runs.code[:-1])
    )
    first = np.flatnonzero(np.concatenate([[True], ~goes_on]))
    last = np.append(first[1:], len(runs)) - 1
    return Runs(
        y=runs.y[first],
        start=runs.start[first],
        stop=runs.stop[last],
        code=runs.code[first],
        gap=np.add.reduceat(runs.gap, first),
        known=np.add.reduceat(runs.known, first),
        deepest=np.maximum.reduceat(runs.deepest, first),
    )
