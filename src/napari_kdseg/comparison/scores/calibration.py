"""Whether a mask is as sure as it is right against another one: the expected calibration error of stored probabilities.

Guo et al., On calibration of modern neural networks, ICML 2017; the bins of
:class:`napari_kdseg.training.scores.calibration.CalibrationError`, of whose value this is the sum over a slide.
"""

from __future__ import annotations

import math

import numpy as np

from napari_kdseg.masks.reduction import NOT_COMPUTED

BINS = 15
STEPS = NOT_COMPUTED - 1
"""A stored probability is a whole number of these parts."""


def calibration_counts(truth: np.ndarray, predicted: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Count pixels by the stored probability of their predicted class.

    Parameters
    ----------
    truth, predicted
        Classes, uint8 ``[h, w]``.
    probability
        uint8 ``[h, w]``, 0..254 for 0..1; 255 = none.

    Returns
    -------
    numpy.ndarray
        int64 ``[2, 255]``: all pixels, and those at which both say the same, by stored probability; pixels that
        anyone does not know are left out.
    """
    known = (truth != NOT_COMPUTED) & (predicted != NOT_COMPUTED) & (probability != NOT_COMPUTED)
    right = known & (truth == predicted)
    return np.stack([np.bincount(probability[seen], minlength=STEPS + 1) for seen in (known, right)])


def calibration_bins(counts: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Return pixels, mean confidence and share of right pixels of each bin: float64 ``[bins + 1, 3]``.

    A confidence of exactly 1 has a bin of its own, the last one. Means of empty bins are NaN.
    """
    levels = np.arange(STEPS + 1)
    place = levels * bins // STEPS
    pixels, right = (np.bincount(place, row, minlength=bins + 1) for row in counts)
    sure = np.bincount(place, counts[0] * levels, minlength=bins + 1) / STEPS
    with np.errstate(invalid="ignore"):
        return np.stack([pixels, sure / pixels, right / pixels], axis=1)


def calibration_error(counts: np.ndarray, bins: int = BINS) -> float:
    """Return the mean over the pixels of |share of right pixels - mean confidence| of their bin; NaN without pixels."""
    pixels, sure, right = calibration_bins(counts, bins).T
    filled = pixels > 0
    total = float(pixels.sum())
    return float((pixels * np.abs(right - sure))[filled].sum()) / total if total else math.nan
