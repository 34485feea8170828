"""Connected components of runs, strip by strip from the top: what reaches the last row stays open for the next strip.

Pixels of one code that share a side or a corner are connected (8-connectivity). Memory holds the runs of one strip and
what is known of the open components, whatever the size of the slide.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_kdseg.comparison.regions.runs import Parts, Runs, no_parts, no_runs, together


class Components:
    """Joins the runs of strips that follow each other.

    Parameters
    ----------
    width
        Columns of the whole.
    """

    def __init__(self, width: int):
        self._width = width
        self._open = no_parts()
        #: The runs of the last row of the strip before, and the open component that each belongs to.
        self._edge = no_runs()
        self._owner = np.zeros(0, np.intp)

    @property
    def still_open(self) -> Parts:
        """What is known so far of the components that the next strip may go on with."""
        return self._open

    def add(self, runs: Runs, bottom: int) -> Parts:
        """Add a strip.

        Parameters
        ----------
        runs
            In reading order, whole, of the rows that follow the strip before.
        bottom
            The row after its last one.

        Returns
        -------
        Parts
            The components that end above its last row.
        """
        before = len(self._edge)
        every = in_both(self._edge, runs)
        one, other = neighbours(every, self._width)
        # Nodes are the open components, then the runs of the strip; a run of the row before stands for its component.
        node = np.concatenate([self._owner, len(self._open) + np.arange(len(runs))])
        count = len(self._open) + len(runs)
        links = coo_array((np.ones(len(one), bool), (node[one], node[other])), shape=(count, count))
        number, label = connected_components(links, directed=False)
        joined = join(together([self._open, runs.parts()]), label, number)
        at_edge = every.y == bottom - 1
        at_edge[:before] = False
        still_open = np.zeros(number, bool)
        still_open[label[node[at_edge]]] = True
        self._edge = _take(every, at_edge)
        kept = np.flatnonzero(still_open)
        kept = kept[np.lexsort((joined.first_x[kept], joined.first_y[kept]))]
        place = np.zeros(number, np.intp)
        place[kept] = np.arange(len(kept))
        self._owner = place[label[node[at_edge]]]
        self._open = joined.take(kept)
        return joined.take(~still_open)

    def finish(self) -> Parts:
        """Return the components that are still open: nothing follows."""
        last, self._open = self._open, no_parts()
        return last


def in_both(above: Runs, below: Runs) -> Runs:
    """Return the runs of two blocks of rows, the second below the first."""
    pairs = zip(vars(above).values(), vars(below).values(), strict=True)
    return Runs(*(np.concatenate(pair) for pair in pairs))


def _take(runs: Runs, kept: np.ndarray) -> Runs:
    return Runs(*(values[kept] for values in vars(runs).values()))


def neighbours(runs: Runs, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of runs of one code that touch, at a side or a corner, from one row to the next.

    Parameters
    ----------
    runs
        In reading order.
    width
        Columns of the whole.

    Returns
    -------
    tuple of numpy.ndarray
        Indices of the upper and of the lower run of each pair.
    """
    line = width + 2
    starts, stops = runs.y * line + runs.start, runs.y * line + runs.stop
    below = (runs.y + 1) * line
    low = np.searchsorted(stops, below + runs.start, side="left")
    high = np.searchsorted(starts, below + runs.stop, side="right")
    count = np.maximum(high - low, 0)
    upper = np.repeat(np.arange(len(runs)), count)
    offset = np.arange(len(upper)) - np.repeat(np.cumsum(count) - count, count)
    lower = np.repeat(low, count) + offset
    same = runs.code[upper] == runs.code[lower]
    return upper[same], lower[same]


def join(parts: Parts, label: np.ndarray, number: int) -> Parts:
    """Make one part of all that have the same label.

    Parameters
    ----------
    parts
        In the order of their first pixels; all of a label are of one code.
    label, number
        The label of each, and how many labels there are; each occurs.

    Returns
    -------
    Parts
        By label.
    """
    if not number:
        return parts
    order = np.argsort(label, kind="stable")
    first = np.searchsorted(label[order], np.arange(number))
    early = order[first]

    def of_all(how: np.ufunc, values: np.ndarray) -> np.ndarray:
        return how.reduceat(values[order], first)

    long = _longest(parts, label, of_all(np.maximum, parts.long))
    return Parts(
        code=parts.code[early],
        area=of_all(np.add, parts.area),
        y0=of_all(np.minimum, parts.y0),
        x0=of_all(np.minimum, parts.x0),
        y1=of_all(np.maximum, parts.y1),
        x1=of_all(np.maximum, parts.x1),
        sum_y=of_all(np.add, parts.sum_y),
        twice_sum_x=of_all(np.add, parts.twice_sum_x),
        gap=of_all(np.add, parts.gap),
        known=of_all(np.add, parts.known),
        deepest=of_all(np.maximum, parts.deepest),
        first_y=parts.first_y[early],
        first_x=parts.first_x[early],
        long=parts.long[long],
        long_y=parts.long_y[long],
        long_x=parts.long_x[long],
    )


def _longest(parts: Parts, label: np.ndarray, longest: np.ndarray) -> np.ndarray:
    """Return which part of each label has its longest run, of several the first in reading order."""
    as_long = np.flatnonzero(parts.long == longest[label])
    order = as_long[np.lexsort((parts.long_x[as_long], parts.long_y[as_long], label[as_long]))]
    return order[np.searchsorted(label[order], np.arange(len(longest)))]
