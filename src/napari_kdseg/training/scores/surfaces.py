"""Distances between the contours of two masks: the 95 % Hausdorff distance and the normalised surface Dice.

The contour of a mask is made of its pixels that share a side with a pixel outside it; what lies beyond the image is
outside (as in MONAI and torchmetrics). Distances run between centres of pixels.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt

PERCENTILE = 95.0


def contour(mask: np.ndarray) -> np.ndarray:
    """Return the pixels of a bool mask ``[H, W]`` that share a side with a pixel outside it."""
    return mask & ~binary_erosion(mask)


def surface_scores(
    prediction: np.ndarray,
    target: np.ndarray,
    tolerance: float,
    spacing: float = 1.0,
    percentile: float = PERCENTILE,
) -> tuple[float, float]:
    """Hausdorff distance and normalised surface Dice of one class in one image.

    Parameters
    ----------
    prediction, target
        bool ``[H, W]``.
    tolerance
        Distance up to which two contours count as the same, in the unit of ``spacing``.
    spacing
        Width of a pixel.
    percentile
        Of the distances; 100 is the Hausdorff distance itself.

    Returns
    -------
    tuple of float
        The larger of the two directed percentiles, in the unit of ``spacing`` (Huttenlocher et al., IEEE TPAMI 1993; as
        MONAI computes it); and the share of both contours that lies within ``tolerance`` of the other one (Nikolov et
        al., arXiv 1809.04430, counted in pixels).

    Notes
    -----
    Both masks empty: NaN and NaN, nothing can be said (as MONAI). One empty: MONAI gives an infinite distance, which
    spoils every mean; here it is the worst there can be, the diagonal of the image, and a surface Dice of 0 (as
    Maier-Hein et al., Metrics reloaded, Nat. Methods 2024, advise).
    """
    if not prediction.any() and not target.any():
        return math.nan, math.nan
    if not prediction.any() or not target.any():
        return math.hypot(*target.shape) * spacing, 0.0
    window = _window(prediction | target)
    ours, theirs = contour(prediction)[window], contour(target)[window]
    there = distance_transform_edt(~theirs)[ours] * spacing
    back = distance_transform_edt(~ours)[theirs] * spacing
    distance = max(np.percentile(there, percentile), np.percentile(back, percentile))
    close = (there <= tolerance).sum() + (back <= tolerance).sum()
    return float(distance), float(close / (there.size + back.size))


def _window(mask: np.ndarray) -> tuple[slice, slice]:
    """Smallest rectangle that holds the mask: all contours are in it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
