"""The scores of two masks, read off counts: of every class and of all of them, with what they were compared to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from napari_kdseg.comparison.scores.calibration import calibration_error
from napari_kdseg.comparison.scores.contours import hausdorff, surface_dice
from napari_kdseg.comparison.scores.figures import Figures, pair_key
from napari_kdseg.training.scores.overlap import overlap_scores


@dataclass(frozen=True)
class ClassScore:
    """One class of a mask against another one; what cannot be said is NaN.

    Attributes
    ----------
    name
        Of the class.
    dice, iou
        Of the pixels that both masks know.
    hd95
        95 % Hausdorff distance of the contours, in the unit of the scores; infinite if it is more than the reach.
    nsd
        Share of both contours within the tolerance of the other one.
    area_first, area_second
        In square millimetres, or pixels of the grid without a scale; of the pixels that both know.
    """

    name: str
    dice: float
    iou: float
    hd95: float
    nsd: float
    area_first: float
    area_second: float


@dataclass(frozen=True)
class PairScores:
    """One mask against another one.

    Attributes
    ----------
    first, second
        Roles. The first is what the second is compared to; a teacher is not the truth for that.
    classes
        Names.
    confusion
        int64 ``[C, C]``, rows by the first.
    by_class
        Scores of each class, background first.
    bands
        int64 ``[B, C, C]``: the confusion by distance from the first mask's borders; ``None`` if it was not counted.
    calibration
        Expected calibration error of the second mask's probabilities against the first mask; NaN without any.
    left_out
        int64 ``[C, C]``: disagreement left out of the map and the regions, near borders of both.
    """

    first: str
    second: str
    classes: tuple[str, ...]
    confusion: np.ndarray
    by_class: tuple[ClassScore, ...]
    bands: np.ndarray | None
    calibration: float
    left_out: np.ndarray | None

    @property
    def pixels(self) -> int:
        """Pixels that both know."""
        return int(self.confusion.sum())

    @property
    def agreement(self) -> float:
        """Share of pixels with the same class; NaN without pixels."""
        return int(np.trace(self.confusion)) / self.pixels if self.pixels else math.nan

    @property
    def mean_dice(self) -> float:
        """Mean of Dice over the classes but background that either mask has; NaN if there is none."""
        seen = [score.dice for score in self.by_class[1:] if not math.isnan(score.dice)]
        return sum(seen) / len(seen) if seen else math.nan


def pair_scores(
    figures: Figures,
    pair: tuple[str, str],
    classes: tuple[str, ...],
    *,
    spacing: float,
    tolerance: float,
    pixel_area: float,
) -> PairScores:
    """Read the scores of two masks off counts.

    Parameters
    ----------
    figures
        As :class:`~napari_kdseg.comparison.scores.tile.Counter` counts them, added up.
    pair
        Roles.
    classes
        Names.
    spacing, tolerance
        Width of a pixel, and how near contours count as the same, in micrometres or pixels.
    pixel_area
        Of a pixel, in the unit of the areas.
    """
    confusion = figures[pair_key(*pair, "confusion")]
    first, second = confusion.sum(axis=1), confusion.sum(axis=0)
    overlap = overlap_scores(np.diag(confusion), second, first)
    contours = figures.get(pair_key(*pair, "contours"))
    calibration = figures.get(pair_key(*pair, "calibration"))
    rows = []
    for value, name in enumerate(classes):
        known = contours is not None and value > 0
        rows.append(
            ClassScore(
                name=name,
                dice=float(overlap["dice"][value]),
                iou=float(overlap["iou"][value]),
                hd95=hausdorff(contours[value], spacing) if known else math.nan,  # type: ignore[index]
                nsd=surface_dice(contours[value], tolerance, spacing) if known else math.nan,  # type: ignore[index]
                area_first=int(first[value]) * pixel_area,
                area_second=int(second[value]) * pixel_area,
            )
        )
    return PairScores(
        first=pair[0],
        second=pair[1],
        classes=classes,
        confusion=confusion,
        by_class=tuple(rows),
        bands=figures.get(pair_key(*pair, "bands")),
        calibration=math.nan if calibration is None else calibration_error(calibration),
        left_out=figures.get(pair_key(*pair, "left_out")),
    )
