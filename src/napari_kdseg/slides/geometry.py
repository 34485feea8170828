"""Where a level lies on the slide: the one place of the half-pixel rule.

Level-0 pixel centres are the coordinates of everything. Pixel 0 of a level of downsample ``f`` covers the level-0
pixels ``0 .. f - 1``, whose middle lies at ``(f - 1) / 2``.
"""

from __future__ import annotations

Pair = tuple[float, float]


def as_pair(value: float | Pair) -> Pair:
    """Return ``value`` as (y, x): a single number counts for both axes."""
    if isinstance(value, tuple | list):
        y, x = value
        return float(y), float(x)
    return float(value), float(value)


def layer_transform(downsample: float | Pair, mpp: float | Pair | None) -> tuple[Pair, Pair]:
    """Scale and translation that put a level or a mask on the slide.

    Parameters
    ----------
    downsample
        Width of one pixel in level-0 pixels, one number or (y, x).
    mpp
        Micrometres per level-0 pixel, one number or (y, x); ``None`` if the slide has no scale: pixels are the unit.

    Returns
    -------
    scale, translate
        Both (y, x), in micrometres or level-0 pixels: ``f * mpp`` and ``(f - 1) / 2 * mpp``.
    """
    factors = as_pair(downsample)
    sizes = (1.0, 1.0) if mpp is None else as_pair(mpp)
    scale = (factors[0] * sizes[0], factors[1] * sizes[1])
    translate = ((factors[0] - 1) / 2 * sizes[0], (factors[1] - 1) / 2 * sizes[1])
    return scale, translate


def units(mpp: float | Pair | None) -> tuple[str, str]:
    """Units of the two axes of a layer placed by :func:`layer_transform`."""
    return ("pixel", "pixel") if mpp is None else ("um", "um")


def corner_transform(mpp: float | Pair | None) -> tuple[Pair, Pair]:
    """Scale and translation that put outlines on the slide, whose corners count from the corner of pixel 0.

    QuPath, ASAP, ImageScope and rasterio count that way; napari counts from the centre of pixel 0.

    Parameters
    ----------
    mpp
        Micrometres per level-0 pixel, one number or (y, x); ``None`` if the slide has no scale: pixels are the unit.

    Returns
    -------
    scale, translate
        Both (y, x): ``mpp`` and ``-mpp / 2``.
    """
    sizes = (1.0, 1.0) if mpp is None else as_pair(mpp)
    return sizes, (-sizes[0] / 2, -sizes[1] / 2)
