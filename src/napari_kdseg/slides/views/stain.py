"""How much haematoxylin and how much eosin there is: colour deconvolution, lazily.

A. C. Ruifrok & D. A. Johnston, Anal. Quant. Cytol. Histol. 23 (2001): by the law of Beer and Lambert the optical
densities of stains add up, so their amounts follow from the density of red, green and blue. The vectors are those of
scikit-image.
"""

from __future__ import annotations

import numpy as np
from skimage.color import hed_from_rgb

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.slide import Slide

STAINS = ("haematoxylin", "eosin")
STEPS = 100
"""Grey values for one unit of optical density (natural logarithm, along the unit vector of the stain)."""


def stain_view(slide: Slide) -> Slide:
    """Return a slide of two channels, haematoxylin and eosin, uint8: :data:`STEPS` a unit of optical density.

    Raises
    ------
    SlideError
        If the slide is no brightfield slide.
    """
    if not slide.brightfield:
        raise SlideError(
            "Stains can only be told apart on a brightfield slide (H&E); this one is fluorescence or has no colours."
        )
    light = slide.background if len(slide.background) == 3 and min(slide.background) > 128 else (255,) * 3
    table = _density_table(light)
    return slide.mapped(
        lambda pixels: unmix(pixels, table), name=slide.name, channels=len(STAINS), channel_names=STAINS
    )


def unmix(pixels: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Return the amounts of haematoxylin and eosin, uint8 ``[h, w, 2]``, of RGB pixels uint8 ``[h, w, 3]``.

    Parameters
    ----------
    pixels
        As stored.
    density
        Optical density of every value of every channel, float32 ``[256, 3]``.
    """
    weights = (hed_from_rgb[:, : len(STAINS)] * STEPS).astype(np.float32)
    amounts = np.zeros((len(STAINS), *pixels.shape[:2]), np.float32)
    for channel in range(3):
        there = density[:, channel].take(pixels[..., channel])
        for stain in range(len(STAINS)):
            amounts[stain] += there * weights[channel, stain]
    np.clip(amounts, 0, 255, out=amounts)
    return np.moveaxis(np.rint(amounts).astype(np.uint8), 0, -1)


def _density_table(light: tuple[int, ...]) -> np.ndarray:
    """Optical density of the values 0 .. 255 of each channel, for the colour of empty glass."""
    values = np.maximum(np.arange(256, dtype=np.float32), 1)[:, None]
    return np.maximum(-np.log(values / np.asarray(light, np.float32)), 0)
