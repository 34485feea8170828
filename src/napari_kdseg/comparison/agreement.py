"""Where teacher and student say the same, pixel by pixel, computed only where someone looks.

Nothing is stored: a disagreement is a function of two masks, which may lie on the slide at different downsamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from napari_kdseg.codes import Difference
from napari_kdseg.comparison.lazy import LazyPyramid
from napari_kdseg.comparison.scores.counting import confusion_counts, differing, disagreement_codes
from napari_kdseg.errors import DataError
from napari_kdseg.masks.pyramid import MaskPyramid
from napari_kdseg.masks.tiling import to_mask_region
from napari_kdseg.slides import LevelArray

Pair = tuple[float, float]
AGREE, ONLY_TEACHER, ONLY_STUDENT, DIFFERENT_CLASS = Difference
#: Where the two differ, by code, in the words of reports.
DISAGREEMENTS = {
    ONLY_TEACHER: "only_teacher",
    ONLY_STUDENT: "only_student",
    DIFFERENT_CLASS: "different_class",
}
BLOCK = 2048


def disagreement(teacher: np.ndarray, student: np.ndarray) -> np.ndarray:
    """Compare two blocks of classes.

    Parameters
    ----------
    teacher, student
        uint8 ``[h, w]``; 0 is background, 255 not computed.

    Returns
    -------
    numpy.ndarray
        uint8 ``[h, w]``: 0 they agree, 1 only the teacher sees a class, 2 only the student does, 3 they see different
        classes, 255 not computed by one of them.
    """
    return disagreement_codes(teacher, differing(teacher, student))


def finer(teacher: MaskPyramid, student: MaskPyramid) -> MaskPyramid:
    """Return the mask whose grid both are compared on.

    Raises
    ------
    DataError
        If they lie on different slides.
    """
    slides = {mask.metadata["made_by"].get("slide") for mask in (teacher, student)}
    if len(slides) > 1:
        raise DataError("The two masks lie on two different slides. Choose masks of one slide.")
    return teacher if teacher.downsample <= student.downsample else student


def disagreement_levels(teacher: MaskPyramid, student: MaskPyramid) -> LazyPyramid:
    """Lay the disagreement of two masks over the slide, on the levels of the finer one.

    Parameters
    ----------
    teacher, student
        Masks of the same slide; they need not share a downsample.

    Returns
    -------
    LazyPyramid
        Of uint8, with the codes of :func:`disagreement`. Masks that still grow show as they are at each look.

    Notes
    -----
    A coarse level is the disagreement of the coarse masks, not the coarse disagreement: specks thinner than a pixel
    of the level are seen when one zooms in.
    """
    grid = finer(teacher, student)

    def read(downsample: Pair, y: int, x: int, height: int, width: int) -> np.ndarray:
        blocks = (mask.read_scaled(downsample, y, x, height, width) for mask in (teacher, student))
        return disagreement(*blocks)

    levels = tuple(
        LevelArray(partial(read, downsample), level.shape, np.uint8, level.chunks)
        for level, downsample in zip(grid.levels, grid.downsamples, strict=True)
    )
    return LazyPyramid(levels, grid.downsamples)


@dataclass(frozen=True)
class Confusion:
    """How often each pair of classes was seen.

    Attributes
    ----------
    counts
        int64 ``[C, C]``, rows by the teacher, columns by the student; pixels of level ``level`` of the finer mask.
    classes
        Names.
    pixel_um2
        Area of one pixel in square micrometres, if the slide has a scale.
    """

    counts: np.ndarray
    classes: tuple[str, ...]
    pixel_um2: float | None

    @property
    def agreement(self) -> float:
        """Share of pixels with the same class; NaN without pixels."""
        total = int(self.counts.sum())
        return float(np.trace(self.counts)) / total if total else float("nan")

    @property
    def dice(self) -> dict[str, float]:
        """Dice of teacher and student, neither of them the truth, for every class; NaN for a class that neither saw."""
        both = self.counts.sum(axis=0) + self.counts.sum(axis=1)
        same = np.diag(self.counts)
        return {
            name: 2 * int(same[index]) / int(both[index]) if both[index] else float("nan")
            for index, name in enumerate(self.classes)
        }

    @property
    def mean_dice(self) -> float:
        """Mean of :attr:`dice` over the classes but background that either of them saw; NaN if there is none."""
        seen = [value for value in list(self.dice.values())[1:] if not math.isnan(value)]
        return sum(seen) / len(seen) if seen else float("nan")

    @property
    def pixels(self) -> dict[int, int]:
        """Pixels by the codes of :func:`disagreement`; together those that both have computed."""
        same, total = int(np.trace(self.counts)), int(self.counts.sum())
        only_teacher, only_student = int(self.counts[1:, 0].sum()), int(self.counts[0, 1:].sum())
        return {
            AGREE: same,
            ONLY_TEACHER: only_teacher,
            ONLY_STUDENT: only_student,
            DIFFERENT_CLASS: total - same - only_teacher - only_student,
        }

    @property
    def shares(self) -> dict[int, float]:
        """Shares of the pixels that both have computed, by the codes of :func:`disagreement`; 0 without pixels."""
        total = max(int(self.counts.sum()), 1)
        return {code: pixels / total for code, pixels in self.pixels.items()}


def confusion(
    teacher: MaskPyramid,
    student: MaskPyramid,
    classes: tuple[str, ...] | None = None,
    region: tuple[int, int, int, int] | None = None,
    level: int = 0,
) -> Confusion:
    """Count the classes of teacher and student against each other, block by block.

    Parameters
    ----------
    teacher, student
        Masks of the same slide.
    classes
        Names of the classes; by default those of the mask that has more.
    region
        ``(y, x, height, width)`` in level-0 pixels; ``None`` is the whole slide.
    level
        Of the finer mask: 0 is exact, higher ones are faster.

    Returns
    -------
    Confusion
        Over the pixels that both have computed.

    Raises
    ------
    DataError
        If a mask holds a class that has no name.
    """
    names = classes if classes is not None else max(teacher.classes, student.classes, key=len)
    grid = finer(teacher, student)
    level = min(level, len(grid.levels) - 1)
    downsample, (height, width) = grid.downsamples[level], grid.levels[level].shape
    area = (0, 0, height, width) if region is None else to_mask_region(region, downsample)
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    for y, x, rows, columns in _blocks(area, (height, width)):
        first, second = (mask.read_scaled(downsample, y, x, rows, columns) for mask in (teacher, student))
        counts += confusion_counts(first, differing(first, second), names)
    mpp = grid.mpp
    pixel = None if mpp is None else downsample[0] * mpp[0] * downsample[1] * mpp[1]
    return Confusion(counts, names, pixel)


def countable_level(mask: MaskPyramid, pixels: int = 2**24) -> int:
    """Return the finest level of a mask that has at most ``pixels``, by default what is counted in about a second."""
    return next((i for i, level in enumerate(mask.levels) if level.size <= pixels), len(mask.levels) - 1)


def _blocks(area: tuple[int, int, int, int], shape: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Cut ``area``, as far as it lies in ``shape``, into blocks ``(y, x, height, width)``."""
    top, left = max(0, area[0]), max(0, area[1])
    bottom, right = min(shape[0], area[0] + area[2]), min(shape[1], area[1] + area[3])
    for y in range(top, bottom, BLOCK):
        for x in range(left, right, BLOCK):
            yield y, x, min(BLOCK, bottom - y), min(BLOCK, right - x)
