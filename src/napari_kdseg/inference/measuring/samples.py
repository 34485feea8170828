"""Sample tiles of a slide, on which settings are tried: the same ones every time, spread over its tissue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from napari_kdseg.slides import Slide, TissueMask

Centre = tuple[float, float]
#: Reads uint8 ``[h, w, C]`` at ``(y, x, h, w)`` of the mask's grid.
Read = Callable[[int, int, int, int], np.ndarray]
SAMPLES = 3


@dataclass(frozen=True)
class Samples:
    """Sample tiles of a slide, seen at the resolution of a mask.

    Attributes
    ----------
    key
        Slide, resolution and colours: by this, measurements on the samples are kept.
    centres
        ``(y, x)`` of each, in pixels of the mask.
    read
        Reads the slide at that resolution.
    """

    key: str
    centres: list[Centre]
    read: Read


def take_samples(
    slide: Slide, downsample: tuple[float, float], colours: str, tissue: TissueMask | None
) -> Samples:
    """Take samples of a slide.

    Parameters
    ----------
    slide
        In the colours that networks see.
    downsample
        ``(y, x)`` of the mask.
    colours
        What these colours are called in the settings.
    tissue
        Where samples are taken from.
    """
    centres = [(y / downsample[0], x / downsample[1]) for y, x in sample_centres(slide.shape, tissue)]
    key = f"{slide.identity()} {downsample[0]:.6g} {downsample[1]:.6g} {colours}"
    return Samples(key, centres, partial(slide.read_scaled, downsample))


def sample_centres(
    slide_shape: tuple[int, int], tissue: TissueMask | None, count: int = SAMPLES
) -> list[Centre]:
    """Choose points on tissue.

    Parameters
    ----------
    slide_shape
        ``(height, width)`` of level 0.
    tissue
        Where there is any; without, or without tissue, the points lie along the diagonal.
    count
        How many.

    Returns
    -------
    list of tuple of float
        ``(y, x)`` in level-0 pixels.
    """
    shares = (np.arange(count) + 0.5) / count
    rows, columns = np.nonzero(tissue.mask) if tissue is not None else (np.empty(0, int), np.empty(0, int))
    if tissue is None or not rows.size:
        return [(share * slide_shape[0], share * slide_shape[1]) for share in shares]
    chosen = (shares * rows.size).astype(int)
    return [
        ((float(rows[i]) + 0.5) * tissue.downsample[0], (float(columns[i]) + 0.5) * tissue.downsample[1])
        for i in chosen
    ]
