"""What is compared, as pyramids that are computed where someone looks; nothing waits for the whole slide."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

import numpy as np

from napari_kdseg.comparison.compared.mask import Role
from napari_kdseg.comparison.compared.together import Together
from napari_kdseg.comparison.lazy import LazyPyramid
from napari_kdseg.comparison.scores.counting import CODES
from napari_kdseg.masks.reduction import NOT_COMPUTED
from napari_kdseg.masks.writing.store import SMALLEST_SIDE
from napari_kdseg.slides import LevelArray

CHUNK = 512
Blocks = Mapping[str, np.ndarray]


def mask_levels(masks: Together, role: Role) -> LazyPyramid:
    """Lay one of the masks over the slide in the common classes, uint8; 255 is not known, or not compared."""
    return _levels(masks, lambda blocks: blocks[role])


def difference_levels(masks: Together) -> LazyPyramid:
    """Lay the disagreement of the mapped pair over the slide: :class:`~napari_kdseg.codes.Difference`, 255 not known.

    It knows nothing of borders: what a comparison leaves out near them is seen in its map alone.
    """
    first, second = (mask.role for mask in masks.pair)
    return _levels(masks, lambda blocks: CODES[blocks[first], blocks[second]])


def cell_levels(masks: Together, pair: tuple[str, str], cells: Collection[tuple[int, int]]) -> LazyPyramid:
    """Lay over the slide the pixels of cells of a confusion table: 1 in them, 0 elsewhere, 255 not known.

    Parameters
    ----------
    masks
        What is compared.
    pair
        Roles by row and by column of the table.
    cells
        ``(row, column)``, numbers of common classes.
    """
    table = np.zeros((256, 256), np.uint8)
    for row, column in cells:
        table[row, column] = 1
    table[NOT_COMPUTED], table[:, NOT_COMPUTED] = NOT_COMPUTED, NOT_COMPUTED
    return _levels(masks, lambda blocks: table[blocks[pair[0]], blocks[pair[1]]])


def _levels(masks: Together, values: Callable[[Blocks], np.ndarray]) -> LazyPyramid:
    """Halve the grid of a comparison until it is small; each level is read from the masks' own levels."""
    grids = [masks]
    while max(grids[-1].shape) > SMALLEST_SIDE:
        down, across = grids[-1].downsample
        grids.append(masks.at((2 * down, 2 * across)))

    def read(grid: Together, y: int, x: int, height: int, width: int) -> np.ndarray:
        return values(grid.read(y, x, height, width))

    levels = tuple(LevelArray(partial(read, grid), grid.shape, np.uint8, (CHUNK, CHUNK)) for grid in grids)
    return LazyPyramid(levels, tuple(grid.downsample for grid in grids))
