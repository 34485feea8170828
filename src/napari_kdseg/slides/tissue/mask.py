"""Where there is tissue on a slide: Otsu's threshold at low power, so that work can skip the empty glass.

N. Otsu, IEEE Trans. Syst. Man Cybern. 1979; on the saturation of colour, which glass lacks whatever its brightness.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from skimage.filters import gaussian, threshold_otsu
from skimage.morphology import remove_small_objects
from skimage.segmentation import clear_border

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.geometry import Pair
from napari_kdseg.slides.slide import Slide

SATURATION_RANGE = (0.03, 0.15)
"""Otsu always finds two halves, also on a slide that is all tissue; a threshold outside of this would cut into it."""

SMALLEST_PART = 2e-4
"""Share of the slide below which a piece is dust, or a hole is part of the tissue."""

LUMEN_UM2 = 50_000.0
"""Holes up to this size (250 um across) may be the lumen of a gland, which is tissue, however small the slide is."""

MAX_SIZE = 1024


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
    min_piece_um2, min_hole_um2
        Smallest piece that is kept and smallest hole that is left open; ``None`` for a slide without scale.
    edited
        Whether a person drew or kept it: then it is used as it is, not computed again.
    """

    mask: np.ndarray
    downsample: Pair
    threshold: float
    min_piece_um2: float | None = None
    min_hole_um2: float | None = None
    edited: bool = False

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

    def record(self) -> dict[str, Any]:
        """Describe what determines the mask, for provenance."""
        made: dict[str, Any] = {"threshold": self.threshold, "downsample": self.downsample}
        if self.edited:
            made["pixels"] = hashlib.blake2b(np.packbits(self.mask).tobytes(), digest_size=10).hexdigest()
        return made


def tissue_mask(
    slide: Slide,
    *,
    max_size: int = MAX_SIZE,
    threshold: float | None = None,
    min_piece_um2: float | None = None,
    min_hole_um2: float | None = None,
) -> TissueMask:
    """Find the tissue of a slide.

    Parameters
    ----------
    slide
        Brightfield slides are judged by saturation, others by intensity.
    max_size
        Longer side of the mask in pixels.
    threshold
        Instead of Otsu's.
    min_piece_um2, min_hole_um2
        Square micrometres below which a piece is dust, and a hole part of the tissue. By default a share of the slide,
        and for holes at least the size of a lumen.

    Returns
    -------
    TissueMask

    Raises
    ------
    SlideError
        If sizes are given in micrometres and the slide has no scale.
    """
    if slide.mpp is None and (min_piece_um2 is not None or min_hole_um2 is not None):
        raise SlideError("Sizes in µm² need the scale of the slide. Give the size of its pixels first.")
    factor = max(1.0, max(slide.shape) / max_size)
    height, width = (math.ceil(side / factor) for side in slide.shape)
    downsample = (slide.shape[0] / height, slide.shape[1] / width)
    values = _tissueness(slide, slide.read_scaled(downsample, 0, 0, height, width))
    if threshold is None:
        threshold = _otsu(slide, values)
    pixel_um2 = math.prod(downsample) * math.prod(slide.mpp) if slide.mpp else None
    smallest = max(1, round(SMALLEST_PART * values.size))
    piece = hole = smallest
    if pixel_um2 is not None:
        hole = max(smallest, round(LUMEN_UM2 / pixel_um2))
        piece = smallest if min_piece_um2 is None else round(min_piece_um2 / pixel_um2)
        hole = hole if min_hole_um2 is None else round(min_hole_um2 / pixel_um2)
    return TissueMask(
        _without_small_parts(values > threshold, piece, hole),
        downsample,
        threshold,
        min_piece_um2=None if pixel_um2 is None else piece * pixel_um2,
        min_hole_um2=None if pixel_um2 is None else hole * pixel_um2,
    )


def _without_small_parts(mask: np.ndarray, piece: int, hole: int) -> np.ndarray:
    """Drop pieces and fill holes of at most so many pixels; glass that reaches the edge of the slide is no hole."""
    mask = remove_small_objects(mask, max_size=piece)
    holes = clear_border(~mask)
    return mask | (holes & ~remove_small_objects(holes, max_size=hole))


def _tissueness(slide: Slide, pixels: np.ndarray) -> np.ndarray:
    """Return what tissue has more of than glass, float ``[h, w]``, a little smoothed."""
    if slide.brightfield:
        return gaussian(_saturation(pixels), sigma=1.0)
    return gaussian(pixels.max(axis=2).astype(np.float32), sigma=1.0, preserve_range=True)


def _otsu(slide: Slide, values: np.ndarray) -> float:
    threshold = float(threshold_otsu(values)) if values.min() < values.max() else float(values.max())
    return float(np.clip(threshold, *SATURATION_RANGE)) if slide.brightfield else threshold


def _saturation(pixels: np.ndarray) -> np.ndarray:
    """Return the saturation of HSV, float32 ``[h, w]``; black pixels (pen, fold) have none."""
    high = pixels.max(axis=2).astype(np.float32)
    return (high - pixels.min(axis=2)) / np.maximum(high, 1)
