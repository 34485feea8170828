"""Augmentation of a tile: a crop, flips, quarter turns, and a light change of the stain.

The stain is changed in haematoxylin-eosin-DAB space (Ruifrok & Johnston, Anal. Quant. Cytol. Histol. 2001; as
augmentation: Tellez et al., IEEE TMI 2018). All of it is linear in optical density, so it is one matrix.
"""

from __future__ import annotations

import numpy as np
from skimage.color import hed_from_rgb, rgb_from_hed

STAIN_FACTOR = 0.05
"""Each stain is multiplied by 1 plus or minus at most this; Tellez et al. call it HED-light."""

STAIN_SHIFT = 0.02
"""Each stain is shifted by at most this, in optical density (natural logarithm)."""

_DENSITY = (-np.log((np.arange(256) + 1) / 256)).astype(np.float32)


def crop(
    image: np.ndarray, mask: np.ndarray, side: int, top: int | None = None, left: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a square of ``side`` out of a tile: at ``(top, left)``, or from the middle."""
    top = (mask.shape[0] - side) // 2 if top is None else top
    left = (mask.shape[1] - side) // 2 if left is None else left
    rows, columns = slice(top, top + side), slice(left, left + side)
    return image[rows, columns], mask[rows, columns]


def augmented(
    image: np.ndarray, mask: np.ndarray, side: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return a random square of a tile, turned, mirrored and, if it is RGB, stained a little differently.

    Parameters
    ----------
    image, mask
        ``uint8 [H, W, C]`` and ``uint8 [H, W]``, sides at least ``side``.
    side
        Side of the square.
    random
        Source of all random choices; the same number of draws whatever the image is.

    Returns
    -------
    tuple of numpy.ndarray
        New arrays ``uint8 [side, side, C]`` and ``uint8 [side, side]``.
    """
    top = int(random.integers(mask.shape[0] - side + 1))
    left = int(random.integers(mask.shape[1] - side + 1))
    turns, mirrored = int(random.integers(4)), bool(random.integers(2))
    factor = 1 + random.uniform(-STAIN_FACTOR, STAIN_FACTOR, 3)
    shift = random.uniform(-STAIN_SHIFT, STAIN_SHIFT, 3)
    image, mask = crop(image, mask, side, top, left)
    image, mask = np.rot90(image, turns), np.rot90(mask, turns)
    if mirrored:
        image, mask = image[:, ::-1], mask[:, ::-1]
    if image.shape[2] == 3:
        image = change_stain(image, factor, shift)
    return np.ascontiguousarray(image), np.ascontiguousarray(mask)


def change_stain(image: np.ndarray, factor: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Multiply and shift the density of haematoxylin, eosin and DAB.

    Parameters
    ----------
    image
        ``uint8 [H, W, 3]``, RGB of a brightfield slide.
    factor, shift
        Three numbers each; ones and zeros leave the image as it is.
    """
    mix = hed_from_rgb @ np.diag(factor) @ rgb_from_hed
    density = _DENSITY[image] @ mix.astype(np.float32) + (shift @ rgb_from_hed).astype(np.float32)
    return np.clip(np.exp(-density) * 256 - 0.5, 0, 255).astype(np.uint8)
