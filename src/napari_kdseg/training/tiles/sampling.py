"""Which tiles an epoch shows, and in which order: every tile once, or tiles of rare classes or lesions more often.

The draw depends on nothing but (seed, stage, epoch), so that an epoch can be entered again anywhere. How often a tile
comes differs by less than one from its share (systematic resampling; Kitagawa, J. Comput. Graph. Stat. 1996).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_kdseg.training.tiles.tile import stable_hash

LESION_SHARE = 0.5
"""Least share of the draws of ``lesion`` that show foreground."""

MOST_COPIES = 10.0
"""A tile comes about this often in an epoch at most: a rare class is not learnt by heart from one tile."""

Draw = tuple[int, int]
"""A tile's index and its copy: 0 for the first time it comes in an epoch, 1 for the second."""


def tile_weights(presence: np.ndarray, sampling: str) -> np.ndarray | None:
    """Expected number of times each tile comes in an epoch.

    Parameters
    ----------
    presence
        bool ``[tiles, C]``: which classes each tile shows, background first.
    sampling
        ``"all"``; ``"balanced"``; ``"lesion"``.

    Returns
    -------
    numpy.ndarray or None
        float64 ``[tiles]`` with mean 1; ``None`` where every tile comes once.

    Notes
    -----
    ``balanced`` weighs a tile by its rarest class, ``max_c 1 / (share of the tiles with class c)``, as the repeat
    factor of Gupta et al. (LVIS, CVPR 2019) does, without its square root and threshold. Background counts as a class
    only for tiles that show nothing else: where each tile shows one class, the classes come equally often.
    """
    lesion = presence[:, 1:].any(axis=1)
    if sampling == "all":
        return None
    if sampling == "lesion":
        share = lesion.mean()
        if not 0 < share < LESION_SHARE:
            return None
        weights = np.where(lesion, LESION_SHARE / share, (1 - LESION_SHARE) / (1 - share))
    else:
        counted = presence.copy()
        counted[:, 0] = ~lesion
        rarity = 1 / np.maximum(counted.sum(axis=0), 1)
        weights = (counted * rarity).max(axis=1)
    for _ in range(50):  # what is taken from the tiles at the limit goes to the others
        weights = np.minimum(weights / weights.mean(), MOST_COPIES)
    return weights / weights.mean()


def median_frequency_weights(pixels: np.ndarray) -> tuple[float, ...]:
    """Weigh classes by how rare they are, for the cross entropy: median frequency balancing.

    Eigen & Fergus, Predicting depth, surface normals and semantic labels, ICCV 2015, sect. 5: the frequency of a class
    is the share of its pixels in the tiles that show it; its weight is the median of all frequencies over its own.

    Parameters
    ----------
    pixels
        int64 ``[tiles, C]``: pixels of each class in each tile.

    Returns
    -------
    tuple of float
        One weight a class; 1 for a class no tile shows.
    """
    labelled = pixels.sum(axis=1, keepdims=True)
    of_tiles_that_show_it = ((pixels > 0) * labelled).sum(axis=0)
    frequency = pixels.sum(axis=0) / np.maximum(of_tiles_that_show_it, 1)
    shown = frequency > 0
    middle = np.median(frequency[shown]) if shown.any() else 1.0
    return tuple(float(w) for w in np.where(shown, middle / np.where(shown, frequency, 1.0), 1.0))


def epoch_order(
    names: Sequence[str], weights: np.ndarray | None, *, seed: int, stage: str, epoch: int
) -> list[Draw]:
    """Draw and shuffle the tiles of an epoch: as many as there are tiles.

    Parameters
    ----------
    names
        Names of the tiles; the order depends on these, not on their places in the list.
    weights
        What :func:`tile_weights` returned.
    seed, stage, epoch
        What the draw depends on.
    """
    order = sorted(range(len(names)), key=lambda index: stable_hash(seed, stage, epoch, names[index]))
    if weights is None:
        return [(index, 0) for index in order]
    offset = stable_hash(seed, "sampling", stage, epoch) / 2**63
    ends = np.floor(np.cumsum(weights[order]) / weights.sum() * len(order) + offset)
    ends[-1] = len(order)  # whatever was rounded on the way
    copies = np.diff(ends, prepend=0).astype(int)
    draws = [(index, copy) for index, count in zip(order, copies, strict=True) for copy in range(count)]
    return sorted(draws, key=lambda draw: stable_hash(seed, "order", stage, epoch, names[draw[0]], draw[1]))
