"""A few places on a slide where settings are tried: the same ones every time, spread over its tissue."""

from __future__ import annotations

import numpy as np

from napari_kdseg.slides import TissueMask

Centre = tuple[float, float]
SAMPLES = 3


def sample_centres(
    slide_shape: tuple[int, int], tissue: TissueMask | None, count: int = SAMPLES
) -> list[Centre]:
    """Choose places on tissue.

    Parameters
    ----------
    slide_shape
        ``(height, width)`` of level 0.
    tissue
        Where there is any; without, or without tissue, the places lie along the diagonal.
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
