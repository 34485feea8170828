"""Agreement by distance from a border: deep inside, two masks differ for other reasons than along a rim."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from napari_kdseg.comparison.scores.distances import LONGEST_REACH, class_borders, squared_distances
from napari_kdseg.masks.reduction import NOT_COMPUTED

EDGES = (2.0, 4.0, 8.0, 16.0)
"""Upper ends of the bands but the last one, in micrometres; in pixels of the grid for a slide without a scale."""


def band_edges(spacing: float, edges: Sequence[float] = EDGES) -> tuple[float, ...]:
    """Return the edges that can be told apart on a grid: not less than a pixel wide, and not beyond the reach."""
    return tuple(edge for edge in edges if spacing <= edge <= LONGEST_REACH * spacing)


def band_reach(spacing: float) -> int:
    """Return how many pixels around a block its bands need."""
    return math.ceil(max(band_edges(spacing), default=0.0) / spacing)


def bands_of(classes: np.ndarray, spacing: float) -> np.ndarray:
    """Return the band of every pixel by its distance to the nearest pixel at a border of a mask.

    Parameters
    ----------
    classes
        uint8 ``[h, w]``; the outermost :func:`band_reach` + 1 pixels are context.
    spacing
        Width of a pixel.

    Returns
    -------
    numpy.ndarray
        uint8 ``[h, w]``: 0 up to the first edge, ``len(band_edges(spacing))`` beyond the last one.
    """
    edges = band_edges(spacing)
    squared = squared_distances(class_borders(classes), band_reach(spacing))
    bands = np.zeros(classes.shape, np.uint8)
    for edge in edges:
        bands += squared > math.floor((edge / spacing) ** 2 * (1 + 1e-9))
    return bands


def band_counts(
    bands: np.ndarray, first: np.ndarray, second: np.ndarray, classes: int, number: int
) -> np.ndarray:
    """Count pairs of classes in each band.

    Parameters
    ----------
    bands, first, second
        uint8 ``[h, w]``; pixels that either mask did not compute are left out.
    classes, number
        Number of classes ``C`` and of bands ``B``.

    Returns
    -------
    numpy.ndarray
        int64 ``[B, C, C]``, rows by the first mask.
    """
    known = (first != NOT_COMPUTED) & (second != NOT_COMPUTED)
    places = (bands[known].astype(np.intp) * classes + first[known]) * classes + second[known]
    return np.bincount(places, minlength=number * classes**2).reshape(number, classes, classes)
