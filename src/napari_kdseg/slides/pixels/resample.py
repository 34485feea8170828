"""Regions of an imaginary level, resampled from a real one.

Edges are exact: pixel ``i`` of a level of downsample ``f`` covers ``[i f, (i + 1) f)`` level-0 pixels, also where that
begins in the middle of a pixel of the finer level, so neighbouring regions fit together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from napari_kdseg.slides.geometry import Pair
from napari_kdseg.slides.readers.backend import Level

AS_GOOD = 1.02
"""A level that is coarser by less than this is as good: 4.0 is read from a level of 4.0002, not from a finer one."""

NO_SHIFT = 1e-3
"""Pixels; a region that resampling would move by less is read as it is."""

BAND_PIXELS = 2**24
"""Pixels of the finer level that are held at once."""


def nearest_finer(levels: Sequence[Level], downsample: Pair) -> int:
    """Return the index of the coarsest level that still resolves ``downsample``; the finest, if none does."""
    fitting = (
        index
        for index, level in enumerate(levels)
        if all(has <= wanted * AS_GOOD for has, wanted in zip(level.downsample, downsample, strict=True))
    )
    return max(fitting, default=0)


def resample(
    read: Callable[[int, int, int, int], np.ndarray],
    ratio: tuple[float, float],
    y: int,
    x: int,
    height: int,
    width: int,
) -> np.ndarray:
    """Read a region of a level that is ``ratio`` coarser than the one ``read`` reads.

    Whole ratios average their pixels exactly (box); others use a triangle as wide as the shrinking, or bilinear
    interpolation.

    Parameters
    ----------
    read
        ``read(y, x, height, width) -> [h, w, c]`` on the finer level; may be asked for pixels outside of it.
    ratio
        Width of a pixel of the result in pixels of the finer level, (y, x).
    y, x, height, width
        The region, in pixels of the result.

    Returns
    -------
    np.ndarray
        ``[height, width, c]`` in the dtype of what was read.
    """
    shifts = (
        abs(step - 1) * (abs(start) + side)
        for step, start, side in zip(ratio, (y, x), (height, width), strict=True)
    )
    if max(shifts) < NO_SHIFT:
        return read(y, x, height, width)
    whole = all(abs(step - round(step)) < 1e-9 and step > 0.5 for step in ratio)
    method = Image.Resampling.BOX if whole else Image.Resampling.BILINEAR
    margin = [0 if whole else math.ceil(max(step, 1.0)) + 1 for step in ratio]
    left, right = x * ratio[1], (x + width) * ratio[1]
    first, last = math.floor(left + 1e-9) - margin[1], math.ceil(right - 1e-9) + margin[1]
    rows = max(1, int(BAND_PIXELS / (last - first) / ratio[0]))
    bands = []
    for start in range(y, y + height, rows):
        stop = min(start + rows, y + height)
        top, bottom = start * ratio[0], stop * ratio[0]
        upper, lower = math.floor(top + 1e-9) - margin[0], math.ceil(bottom - 1e-9) + margin[0]
        pixels = read(upper, first, lower - upper, last - first)
        box = (left - first, top - upper, right - first, bottom - upper)
        bands.append(_resize(pixels, (width, stop - start), method, box))
    return bands[0] if len(bands) == 1 else np.concatenate(bands)


def _resize(
    pixels: np.ndarray,
    size: tuple[int, int],
    method: Image.Resampling,
    box: tuple[float, float, float, float],
) -> np.ndarray:
    # PIL checks the box against the size without tolerance for rounding.
    box = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], pixels.shape[1]), min(box[3], pixels.shape[0]))
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return np.asarray(Image.fromarray(pixels).resize(size, method, box=box))
    planes = []
    for channel in range(pixels.shape[2]):
        plane = Image.fromarray(pixels[..., channel].astype(np.float32))
        planes.append(np.asarray(plane.resize(size, method, box=box)))
    result = np.stack(planes, axis=2)
    if np.issubdtype(pixels.dtype, np.integer):
        limits = np.iinfo(pixels.dtype)
        result = np.clip(np.rint(result), limits.min, limits.max)
    return result.astype(pixels.dtype)


def halve(pixels: np.ndarray) -> np.ndarray:
    """Average blocks of 2 x 2 pixels of ``[h, w, c]``; an odd last row or column stands for two."""
    pixels = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="edge")
    wide = (
        np.float64
        if np.issubdtype(pixels.dtype, np.floating)
        else np.int64
        if pixels.itemsize > 2
        else np.uint32
    )
    total = pixels[0::2].astype(wide) + pixels[1::2]
    total = total[:, 0::2] + total[:, 1::2]
    if np.issubdtype(pixels.dtype, np.floating):
        return (total / 4).astype(pixels.dtype)
    return ((total + 2) // 4).astype(pixels.dtype)
