"""Where there is tissue on a slide: Otsu's threshold at low power, so that work can skip the empty glass.

N. Otsu, IEEE Trans. Syst. Man Cybern. 1979; on the saturation of colour, which glass lacks whatever its brightness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from skimage.filters import gaussian, threshold_otsu
from skimage.morphology import remove_small_holes, remove_small_objects

from napari_kdseg.slides.geometry import Pair
from napari_kdseg.slides.slide import Slide

SATURATION_RANGE = (0.03, 0.15)
"""Otsu always finds two halves, also on a slide that is all tissue; a threshold outside of this would cut into it."""

SMALLEST_PART = 2e-4
"""Share of the slide below which a piece is dust, or a hole is part of the tissue."""

LUMEN_UM2 = 50_000.0
"""Holes up to this size (250 um across) may be the lumen of a gland, which is tissue, however small the slide is."""


@dataclass(frozen=True)
class TissueMask:
    """Tissue at low power.

    Attributes
    ----------
    mask
        bool ``[h, w]`` over the whole slide.
    downsample
        Width of its pixels in level-0 pixels, (y, x).
    threshold
        That was used: saturation in [0, 1], or intensity in the unit of the slide.
    """

    mask: np.ndarray
    downsample: Pair
    threshold: float

    @property
    def fraction(self) -> float:
        """Share of the slide that is tissue."""
        return float(self.mask.mean())

    def covers(self, y: float, x: float, height: float, width: float) -> bool:
        """Tell whether there is any tissue in a region given in level-0 pixels."""
        top, left = max(math.floor(y / self.downsample[0]), 0), max(math.floor(x / self.downsample[1]), 0)
        bottom, right = (
            math.ceil((y + height) / self.downsample[0]),
            math.ceil((x + width) / self.downsample[1]),
        )
        return bool(self.mask[top : max(bottom, 0), left : max(right, 0)].any())


def tissue_mask(slide: Slide, *, max_size: int = 1024, threshold: float | None = None) -> TissueMask:
    """Find the tissue of a slide.

    Parameters
    ----------
    slide
        Brightfield slides are judged by saturation, others by intensity.
    max_size
        Longer side of the mask in pixels.
    threshold
        Instead of Otsu's.

    Returns
    -------
    TissueMask
    """
    factor = max(1.0, max(slide.shape) / max_size)
    height, width = (math.ceil(side / factor) for side in slide.shape)
    downsample = (slide.shape[0] / height, slide.shape[1] / width)
    pixels = slide.read_scaled(downsample, 0, 0, height, width)
    if slide.brightfield:
        values = gaussian(_saturation(pixels), sigma=1.0)
    else:
        values = gaussian(pixels.max(axis=2).astype(np.float32), sigma=1.0, preserve_range=True)
    if threshold is None:
        threshold = float(threshold_otsu(values)) if values.min() < values.max() else float(values.max())
        if slide.brightfield:
            threshold = float(np.clip(threshold, *SATURATION_RANGE))
    smallest = max(1, round(SMALLEST_PART * values.size))
    lumen = LUMEN_UM2 / (math.prod(downsample) * math.prod(slide.mpp)) if slide.mpp else 0.0
    mask = remove_small_objects(values > threshold, max_size=smallest)
    return TissueMask(remove_small_holes(mask, max_size=max(smallest, round(lumen))), downsample, threshold)


def _saturation(pixels: np.ndarray) -> np.ndarray:
    """Return the saturation of HSV, float32 ``[h, w]``; black pixels (pen, fold) have none."""
    high = pixels.max(axis=2).astype(np.float32)
    return (high - pixels.min(axis=2)) / np.maximum(high, 1)
