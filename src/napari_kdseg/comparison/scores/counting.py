"""Two blocks of classes against each other: where they differ, how, and the confusion of their classes.

Masks of one slide agree nearly everywhere, so what costs is done only where they differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_kdseg.codes import Difference
from napari_kdseg.errors import DataError
from napari_kdseg.masks.reduction import NOT_COMPUTED

VALUES = 256
#: Up to as many classes are counted by as many comparisons, which are faster than one histogram.
FEW_CLASSES = 24


def _codes() -> np.ndarray:
    first, second = np.indices((VALUES, VALUES))
    codes = np.full((VALUES, VALUES), Difference.DIFFERENT_CLASS, np.uint8)
    codes[second == 0] = Difference.ONLY_TEACHER
    codes[first == 0] = Difference.ONLY_STUDENT
    codes[first == second] = Difference.AGREE
    codes[(first == NOT_COMPUTED) | (second == NOT_COMPUTED)] = NOT_COMPUTED
    return codes


#: The code of a pair of classes, uint8 ``[256, 256]``: :class:`~napari_kdseg.codes.Difference`, or 255.
CODES = _codes()


@dataclass(frozen=True)
class Differing:
    """The pixels of a block at which two masks do not say the same; one of them may say nothing.

    Attributes
    ----------
    where
        Their flat indices, in order.
    first, second
        What the masks say there, uint8.
    """

    where: np.ndarray
    first: np.ndarray
    second: np.ndarray

    @property
    def codes(self) -> np.ndarray:
        """Their codes, uint8: see :data:`CODES`."""
        return CODES[self.first, self.second]


def differing(first: np.ndarray, second: np.ndarray) -> Differing:
    """Find where two blocks, uint8 ``[h, w]``, differ."""
    first, second = first.ravel(), second.ravel()
    where = np.flatnonzero(first != second)
    return Differing(where, first[where], second[where])


def disagreement_codes(first: np.ndarray, pixels: Differing) -> np.ndarray:
    """Return the code of every pixel of a block, uint8 of the shape of ``first``: see :data:`CODES`."""
    codes = np.zeros(first.shape, np.uint8)
    codes[first == NOT_COMPUTED] = NOT_COMPUTED
    codes.ravel()[pixels.where] = pixels.codes
    return codes


def confusion_counts(first: np.ndarray, pixels: Differing, classes: Sequence[str]) -> np.ndarray:
    """Count pairs of classes in a block.

    Parameters
    ----------
    first
        The classes of the first mask, uint8 of any shape.
    pixels
        Where the second one differs from it.
    classes
        Names of the ``C`` classes.

    Returns
    -------
    numpy.ndarray
        int64 ``[C, C]``, rows by the first mask; pixels that either did not compute are left out.

    Raises
    ------
    DataError
        If a mask holds a class that has no name.
    """
    count = len(classes)
    pairs = pixels.first.astype(np.intp) * VALUES + pixels.second
    cells = np.bincount(pairs, minlength=VALUES * VALUES).reshape(VALUES, VALUES)
    totals = class_counts(first, count)
    known = totals[:count].sum() + totals[NOT_COMPUTED]
    if known != first.size or cells[:, count:NOT_COMPUTED].any():
        raise DataError(
            f"The masks hold more classes than the {count} named ({', '.join(classes)}). "
            "Compare masks made for the same classes, or say which class of one is which of the other."
        )
    counts = cells[:count, :count].astype(np.int64)
    np.fill_diagonal(counts, totals[:count] - cells[:count].sum(axis=1))
    return counts


def class_counts(block: np.ndarray, classes: int) -> np.ndarray:
    """Return how many pixels have each value, int64 ``[256]``; with few classes, those and 255 only."""
    if classes > FEW_CLASSES:
        return np.bincount(block.ravel(), minlength=VALUES)
    totals = np.zeros(VALUES, np.int64)
    for value in (*range(classes), NOT_COMPUTED):
        totals[value] = np.count_nonzero(block == value)
    return totals
