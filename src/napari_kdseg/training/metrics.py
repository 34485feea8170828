"""Scores of a segmentation, all from one confusion matrix: Dice, intersection over union, pixel accuracy.

A class that occurs neither in the annotation nor in the prediction has no score (NaN) and is left out of every mean.
Pixels that nobody annotated (255) count for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

IGNORE = 255


def confusion_matrix(prediction: Tensor, target: Tensor, classes: int) -> Tensor:
    """Count pixels by annotated class (rows) and predicted class (columns).

    Parameters
    ----------
    prediction, target
        Integer classes of the same shape; 255 in ``target`` is left out.
    classes
        Number of classes ``C``.

    Returns
    -------
    Tensor
        int64 ``[C, C]`` on the device of ``target``.
    """
    labelled = target != IGNORE
    pairs = target[labelled].long() * classes + prediction[labelled].long()
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def dice_by_class(matrix: Tensor) -> Tensor:
    """Return ``2 |A and P| / (|A| + |P|)`` of every class, float64 ``[C]``; NaN where both are empty."""
    both = (matrix.sum(0) + matrix.sum(1)).double()
    return 2 * matrix.diagonal().double() / both


def iou_by_class(matrix: Tensor) -> Tensor:
    """Return ``|A and P| / |A or P|`` of every class, float64 ``[C]``; NaN where both are empty."""
    same = matrix.diagonal().double()
    return same / (matrix.sum(0) + matrix.sum(1) - same)


class SegmentationScore:
    """Adds up predictions and says how good they are.

    Parameters
    ----------
    classes
        Names, background first.
    """

    def __init__(self, classes: Sequence[str]):
        self.classes = tuple(classes)
        self.matrix = torch.zeros(len(classes), len(classes), dtype=torch.int64)
        self._tiles: list[float] = []

    def add(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch: integer classes ``[N, H, W]``, both on the same device."""
        tiles = torch.stack(
            [confusion_matrix(p, t, len(self.classes)) for p, t in zip(prediction, target, strict=True)]
        ).cpu()
        self.matrix += tiles.sum(0)
        for matrix in tiles:
            score = _mean(dice_by_class(matrix)[1:])
            if not math.isnan(score):
                self._tiles.append(score)

    def summary(self) -> dict[str, float]:
        """Scores by name; NaN where nothing can be said.

        Returns
        -------
        dict
            ``dice`` and ``iou``: mean over the foreground classes, pixels of all tiles pooled; ``tile_dice``: the
            Dice of each tile's foreground classes, averaged over the tiles where annotation or prediction show any;
            ``accuracy``: share of right pixels, background included; ``dice/<class>`` and ``iou/<class>``.
        """
        dice, iou = dice_by_class(self.matrix), iou_by_class(self.matrix)
        total = int(self.matrix.sum())
        summary = {
            "dice": _mean(dice[1:]),
            "iou": _mean(iou[1:]),
            "tile_dice": sum(self._tiles) / len(self._tiles) if self._tiles else math.nan,
            "accuracy": int(self.matrix.trace()) / total if total else math.nan,
        }
        for name, one_dice, one_iou in zip(
            self.classes[1:], dice[1:].tolist(), iou[1:].tolist(), strict=True
        ):
            summary |= {f"dice/{name}": one_dice, f"iou/{name}": one_iou}
        return summary


def _mean(values: Tensor) -> float:
    """Mean of the values that are numbers; NaN if none is."""
    return float(values.nanmean()) if len(values) else math.nan
