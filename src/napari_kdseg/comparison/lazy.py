"""Pyramids computed from masks when they are looked at; nothing of them is stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from napari_kdseg.errors import DataError
from napari_kdseg.masks.pyramid import MaskPyramid
from napari_kdseg.masks.reduction import dequantise
from napari_kdseg.slides import LevelArray

Pair = tuple[float, float]


@dataclass(frozen=True)
class LazyPyramid:
    """Levels computed when they are looked at.

    Attributes
    ----------
    levels
        From fine to coarse.
    downsamples
        ``(y, x)`` of every level against level 0 of the slide.
    """

    levels: tuple[LevelArray, ...]
    downsamples: tuple[Pair, ...]

    @property
    def downsample(self) -> Pair:
        """``(y, x)`` of the finest level."""
        return self.downsamples[0]


def probability_levels(mask: MaskPyramid) -> LazyPyramid:
    """Return a stored probability as numbers.

    Parameters
    ----------
    mask
        ``probabilities/...`` of a store.

    Returns
    -------
    LazyPyramid
        float32 in [0, 1]; NaN where there is none.
    """
    return _floats(mask, lambda level, area: dequantise(mask.levels[level][area]))


def change_levels(teacher: MaskPyramid, corrected: MaskPyramid) -> LazyPyramid:
    """Return how a soft label was changed at the annotated class.

    Parameters
    ----------
    teacher, corrected
        ``probabilities/teacher_on_annotated`` and ``probabilities/corrected_on_annotated`` of one store.

    Returns
    -------
    LazyPyramid
        float32 in [-1, 1], corrected minus teacher's; NaN outside the annotation.

    Raises
    ------
    DataError
        If they were not made together.
    """
    if teacher.metadata["made_by"] != corrected.metadata["made_by"]:
        raise DataError(
            "The two soft labels come from different corrections. Correct them on this slide again."
        )

    def change(level: int, area: tuple[slice, slice]) -> np.ndarray:
        return dequantise(corrected.levels[level][area]) - dequantise(teacher.levels[level][area])

    return _floats(teacher, change)


def _floats(grid: MaskPyramid, values: Callable[[int, tuple[slice, slice]], np.ndarray]) -> LazyPyramid:
    def read(level: int, y: int, x: int, height: int, width: int) -> np.ndarray:
        return values(level, (slice(y, y + height), slice(x, x + width)))

    levels = tuple(
        LevelArray(partial(read, index), level.shape, np.float32, level.chunks)
        for index, level in enumerate(grid.levels)
    )
    return LazyPyramid(levels, grid.downsamples)
