"""A small picture of a whole slide, for people to find their way."""

from __future__ import annotations

import math

import numpy as np

from napari_kdseg.slides.slide import Slide


def overview(slide: Slide, max_size: int = 512) -> np.ndarray:
    """Return the whole slide as uint8 ``[h, w, 3]``, its longer side ``max_size`` pixels or fewer, never magnified."""
    factor = max(1.0, max(slide.shape) / max_size)
    height, width = (math.ceil(side / factor) for side in slide.shape)
    downsample = (slide.shape[0] / height, slide.shape[1] / width)
    return as_picture(slide, slide.read_scaled(downsample, 0, 0, height, width))


def as_picture(slide: Slide, pixels: np.ndarray) -> np.ndarray:
    """Return pixels of a slide as uint8 ``[h, w, 3]``.

    Fluorescence is shown as the brightest of its channels, each brought to its own range, in grey.
    """
    if slide.brightfield or (pixels.dtype == np.uint8 and pixels.shape[2] == 3):
        return pixels
    values = np.nan_to_num(pixels.astype(np.float32))
    low, high = np.percentile(values, (1.0, 99.8), axis=(0, 1))
    scaled = (values - low) / np.where(high > low, high - low, np.inf)
    grey = np.rint(255 * np.clip(scaled.max(axis=2), 0, 1)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
