"""Where there is tissue, found on the overview of the slide, so that empty glass costs nothing.

Stain gives colour: the threshold is Otsu's on the spread of the channels (as in CLAM and HistomicsTK), kept
within bounds so that an image full of tissue, or without any, is not cut in two. Dark grey (ink, pigment,
folds) counts as tissue as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import binary_dilation
from skimage.filters import threshold_otsu

Pair = tuple[float, float]
COLOUR_BOUNDS = (8, 20)
DARK = 140


@dataclass(frozen=True)
class TissueMask:
    """Tissue on the overview of a slide.

    Attributes
    ----------
    mask
        bool ``[h, w]``.
    downsample
        ``(y, x)`` of the overview.
    parameters
        How it was found, for the record.
    """

    mask: np.ndarray
    downsample: Pair
    parameters: dict[str, Any]

    def touches(self, y: float, x: float, height: float, width: float) -> bool:
        """Tell whether a rectangle of level 0 holds any tissue."""
        top, left = max(0, int(y / self.downsample[0])), max(0, int(x / self.downsample[1]))
        bottom = int(np.ceil((y + height) / self.downsample[0]))
        right = int(np.ceil((x + width) / self.downsample[1]))
        return bool(self.mask[top : max(bottom, 0), left : max(right, 0)].any())


def find_tissue(overview: np.ndarray, downsample: Pair) -> TissueMask:
    """Find tissue on the overview of a brightfield slide.

    Parameters
    ----------
    overview
        uint8 ``[h, w, 3]``.
    downsample
        ``(y, x)`` of the overview.

    Returns
    -------
    TissueMask
        Grown by one pixel of the overview, so that thin rims are kept.
    """
    brightest, darkest = overview.max(axis=-1), overview.min(axis=-1)
    colour = brightest - darkest
    otsu = threshold_otsu(colour) if colour.min() < colour.max() else COLOUR_BOUNDS[0]
    threshold = int(np.clip(otsu, *COLOUR_BOUNDS))
    mask = binary_dilation((colour > threshold) | (brightest < DARK), np.ones((3, 3), dtype=bool))
    parameters = {"colour_threshold": threshold, "dark_threshold": DARK, "grown_by": 1}
    return TissueMask(mask, downsample, parameters)
