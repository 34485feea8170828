"""How far the contours of two masks of a slide lie apart: 95 % Hausdorff distance and normalised surface Dice.

Those of :mod:`napari_kdseg.training.scores.surfaces`, for slides that no array can hold: each tile counts the distances
of its contour pixels, and the scores are read off the sums. Distances are counted up to a reach; where more than five
of a hundred lie farther, the Hausdorff distance is said to be more than it.
"""

from __future__ import annotations

import math

import numpy as np

from napari_kdseg.comparison.scores.distances import class_contours, squared_distances_at
from napari_kdseg.masks.reduction import NOT_COMPUTED
from napari_kdseg.training.scores.surfaces import PERCENTILE

Core = tuple[slice, slice]


def contour_counts(first: np.ndarray, second: np.ndarray, core: Core, classes: int, reach: int) -> np.ndarray:
    """Count the distances between the contours of two masks, of the contour pixels in the core of a window.

    Parameters
    ----------
    first, second
        uint8 ``[h, w]``: a window with at least ``reach + 1`` pixels around its core, 255 beyond the slide.
    core
        Where in the window.
    classes
        Number of classes ``C``.
    reach
        In pixels.

    Returns
    -------
    numpy.ndarray
        int64 ``[C, 2, reach ** 2 + 2]``: for each class, from the first mask's contour to the second's and back, how
        many pixels have which squared distance; the last place counts all that is farther.
    """
    unknown = (first == NOT_COMPUTED) | (second == NOT_COMPUTED)
    masks = [np.where(unknown, NOT_COMPUTED, mask).astype(np.uint8) for mask in (first, second)]
    counts = np.zeros((classes, 2, reach * reach + 2), np.int64)
    inside = np.zeros(first.shape, bool)
    inside[core] = True
    found = []
    for mask in masks:
        where = np.flatnonzero(class_contours(mask))
        found.append((where, mask.ravel()[where]))
    for value in range(1, classes):
        ours, theirs = (where[seen == value] for where, seen in found)
        for way, (points, seeds) in enumerate(((ours, theirs), (theirs, ours))):
            points = points[inside.ravel()[points]]
            squared = squared_distances_at(points, seeds, first.shape[1], reach)
            counts[value, way] = np.bincount(squared, minlength=counts.shape[2])
    return counts


def surface_dice(counts: np.ndarray, tolerance: float, spacing: float) -> float:
    """Return the share of both contours of a class that lies within ``tolerance`` of the other one.

    Parameters
    ----------
    counts
        ``[2, reach ** 2 + 2]``, of one class.
    tolerance
        In the unit of ``spacing``, the width of a pixel; at most the reach.

    Returns
    -------
    float
        NaN where neither mask has the class, 0 where one of them has not.

    Raises
    ------
    ValueError
        If the tolerance is beyond the reach.
    """
    if tolerance > math.isqrt(counts.shape[1]) * spacing:
        raise ValueError(f"distances were counted up to {math.isqrt(counts.shape[1]) * spacing:g} only")
    total = int(counts.sum())
    near = np.sqrt(np.arange(counts.shape[1] - 1)) * spacing <= tolerance
    return int(counts[:, :-1][:, near].sum()) / total if total else math.nan


def hausdorff(counts: np.ndarray, spacing: float, percentile: float = PERCENTILE) -> float:
    """Return the larger of the two directed percentiles of the distances of a class.

    Parameters
    ----------
    counts, spacing
        As in :func:`surface_dice`.
    percentile
        With linear interpolation between ranks, as :func:`numpy.percentile`.

    Returns
    -------
    float
        NaN where neither mask has the class; infinite where it is beyond the reach, or one mask has not the class.
    """
    if not counts.sum():
        return math.nan
    return (
        max(_percentile(way, percentile) for way in counts) * spacing
        if counts.any(axis=1).all()
        else math.inf
    )


def _percentile(counts: np.ndarray, percentile: float) -> float:
    """Return the percentile of distances whose squares are counted; the last count is of infinite ones."""
    rank = (int(counts.sum()) - 1) * percentile / 100
    below = math.floor(rank)
    places = np.searchsorted(np.cumsum(counts), [below, math.ceil(rank)], side="right")
    low, high = (math.inf if place == counts.size - 1 else math.sqrt(place) for place in places)
    return low if low == high else low + (high - low) * (rank - below)
