"""Augmentation of a tile: zoom, crop, flips, quarter turns, stain, brightness, contrast and blur.

The stain is changed in haematoxylin-eosin-DAB space (Ruifrok & Johnston, Anal. Quant. Cytol. Histol. 2001; as
augmentation: Tellez et al., IEEE TMI 2018). All of it is linear in optical density, so it is one matrix.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.color import hed_from_rgb, rgb_from_hed

from napari_kdseg.training.settings import AugmentationConfig

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
    image: np.ndarray,
    mask: np.ndarray,
    side: int,
    random: np.random.Generator,
    settings: AugmentationConfig | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a random square of a tile, changed as ``settings`` allow.

    Parameters
    ----------
    image, mask
        ``uint8 [H, W, C]`` and ``uint8 [H, W]``, sides at least ``side``.
    side
        Side of the square.
    random
        Source of all random choices; the same number of draws whatever image and settings are, so that what is
        switched off changes nothing about the rest.
    settings
        Which changes, how often and how much; ``None`` for the defaults.

    Returns
    -------
    tuple of numpy.ndarray
        New arrays ``uint8 [side, side, C]`` and ``uint8 [side, side]``.

    Notes
    -----
    The stain is changed in images of three channels only, which are taken to be RGB.
    """
    settings = settings or AugmentationConfig()
    zoomed, stained, lit, blurred = random.random(4)
    zoom = (1 + settings.scale) ** random.uniform(-1, 1) if zoomed < settings.scale_probability else 1.0
    top, left = random.random(2)
    turns, mirrored = int(random.integers(4)), bool(random.integers(2))
    factor = 1 + settings.stain * random.uniform(-1, 1, 3)
    shift = settings.stain_shift * random.uniform(-1, 1, 3)
    brightness = settings.brightness * random.uniform(-1, 1)
    contrast = 1 + settings.contrast * random.uniform(-1, 1)
    sigma = settings.blur * random.uniform(0.1, 1)

    image, mask = _zoomed_square(image, mask, side, zoom, top, left)
    if settings.turns:
        image, mask = np.rot90(image, turns), np.rot90(mask, turns)
    if settings.flips and mirrored:
        image, mask = image[:, ::-1], mask[:, ::-1]
    if image.shape[2] == 3 and stained < settings.stain_probability:
        image = change_stain(image, factor, shift)
    if lit < settings.light_probability:
        image = change_light(image, brightness, contrast)
    if blurred < settings.blur_probability and sigma > 0:
        image = gaussian_filter(image, (sigma, sigma, 0), mode="reflect")
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


def change_light(image: np.ndarray, brightness: float, contrast: float) -> np.ndarray:
    """Stretch the values of an image around its mean by ``contrast``, and add ``brightness`` of the full range."""
    mean = float(image.mean())
    values = np.arange(256, dtype=np.float64)
    table = (values - mean) * contrast + mean + 255 * brightness
    return np.clip(np.rint(table), 0, 255).astype(np.uint8)[image]


def _zoomed_square(
    image: np.ndarray, mask: np.ndarray, side: int, zoom: float, top: float, left: float
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a square of ``side / zoom`` at a share ``(top, left)`` of the room there is, and bring it to ``side``.

    A tile too small for the square is continued by its mirror image on all sides.
    """
    wanted = max(1, round(side / zoom))
    missing = [max(0, wanted - length) for length in mask.shape]
    if any(missing):
        widths = [(room // 2, room - room // 2) for room in missing]
        image = np.pad(image, [*widths, (0, 0)], mode="symmetric")
        mask = np.pad(mask, widths, mode="symmetric")
    first_row = int(top * (mask.shape[0] - wanted + 1))
    first_column = int(left * (mask.shape[1] - wanted + 1))
    image, mask = crop(image, mask, wanted, first_row, first_column)
    if wanted == side:
        return image, mask
    planes = [
        _resized(image[..., channel], side, Image.Resampling.BILINEAR) for channel in range(image.shape[2])
    ]
    return np.stack(planes, axis=2), _resized(mask, side, Image.Resampling.NEAREST)


def _resized(plane: np.ndarray, side: int, method: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize((side, side), method))
