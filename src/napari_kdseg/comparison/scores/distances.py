"""Distances between pixels, up to a reach: exact, in whole squared pixels, so that sums do not depend on tiles.

Distances run between centres of pixels. Nothing is known beyond a block, so a block needs the reach around what is
asked; what lies farther than the reach is told apart only as that.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

#: Most a distance may be asked for: its square and that of a step more fit into sixteen bits.
LONGEST_REACH = 254
#: Rows that are worked on together, so that they stay in the cache of the processor.
BAND = 64


def squared_distances(seeds: np.ndarray, reach: int) -> np.ndarray:
    """Return the squared distance of every pixel to the nearest seed.

    Parameters
    ----------
    seeds
        bool ``[h, w]``.
    reach
        Farther than this many pixels is ``reach ** 2 + 1``.

    Returns
    -------
    numpy.ndarray
        uint16 ``[h, w]``.

    Notes
    -----
    Distances along the columns first, then their smallest sum with the square of a step along the rows: as in
    Felzenszwalb and Huttenlocher (Theory of Computing 2012), which a short reach makes a few passes over the block.
    """
    if not 0 <= reach <= LONGEST_REACH:
        raise ValueError(f"a reach goes from 0 to {LONGEST_REACH} pixels, not {reach}")
    beyond = np.uint16(reach * reach + 1)
    if not seeds.any():
        return np.full(seeds.shape, beyond, np.uint16)
    along = np.minimum(_down_columns(seeds, reach), _down_columns(seeds[::-1], reach)[::-1])
    nearest = np.minimum(along * along, beyond)
    out = nearest.copy()
    for top in range(0, len(out), BAND):
        near, best = nearest[top : top + BAND], out[top : top + BAND]
        for step in range(1, min(reach, near.shape[1] - 1) + 1):
            further = near + np.uint16(step * step)
            np.minimum(best[:, step:], further[:, :-step], out=best[:, step:])
            np.minimum(best[:, :-step], further[:, step:], out=best[:, :-step])
    return out


def _down_columns(seeds: np.ndarray, reach: int) -> np.ndarray:
    """Return how many rows above each pixel the nearest seed of its column lies, at most ``reach + 1``."""
    rows = np.full(seeds.shape, reach + 1, np.uint16)
    before = np.full(seeds.shape[1], reach + 1, np.uint16)
    for row, line in enumerate(seeds):
        before = np.minimum(before + np.uint16(1), np.uint16(reach + 1))
        before[line] = 0
        rows[row] = before
    return rows


def squared_distances_at(points: np.ndarray, seeds: np.ndarray, width: int, reach: int) -> np.ndarray:
    """Return the squared distance of some pixels to the nearest of others, which is faster where both are few.

    Parameters
    ----------
    points, seeds
        Flat indices into a block of ``width`` columns.
    width
        Of the block.
    reach
        As in :func:`squared_distances`.

    Returns
    -------
    numpy.ndarray
        int64 ``[len(points)]``; ``reach ** 2 + 1`` where there is no seed within reach.
    """
    if not len(points) or not len(seeds):
        return np.full(len(points), reach * reach + 1, np.int64)
    tree = cKDTree(_positions(seeds, width), balanced_tree=False, compact_nodes=False)
    found, _ = tree.query(_positions(points, width), distance_upper_bound=reach + 0.25)
    squared = np.where(np.isinf(found), reach * reach + 1, found * found)
    return np.minimum(np.rint(squared).astype(np.int64), reach * reach + 1)


def _positions(indices: np.ndarray, width: int) -> np.ndarray:
    return np.stack(np.divmod(indices, width), axis=1).astype(np.float64)


def class_borders(classes: np.ndarray) -> np.ndarray:
    """Mark the pixels that share a side with a pixel of another class.

    What was not computed (255) is no class: it has no border and makes none, nor does the edge of the block.

    Parameters
    ----------
    classes
        uint8 ``[h, w]``.

    Returns
    -------
    numpy.ndarray
        bool ``[h, w]``.
    """
    borders = np.zeros(classes.shape, bool)
    known = classes != 255
    for a, b in (
        ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
    ):
        other = (classes[a] != classes[b]) & known[a] & known[b]
        borders[a] |= other
        borders[b] |= other
    return borders


def class_contours(classes: np.ndarray) -> np.ndarray:
    """Mark the pixels that share a side with a pixel that is not of their class, or with the edge of the block.

    The contour of class ``c`` is what is marked of its pixels: that of
    :func:`napari_kdseg.training.scores.surfaces.contour` for every class at once.

    Parameters
    ----------
    classes
        uint8 ``[h, w]``.
    """
    marked = np.zeros(classes.shape, bool)
    marked[[0, -1]] = True
    marked[:, [0, -1]] = True
    down, across = classes[1:] != classes[:-1], classes[:, 1:] != classes[:, :-1]
    marked[1:] |= down
    marked[:-1] |= down
    marked[:, 1:] |= across
    marked[:, :-1] |= across
    return marked
