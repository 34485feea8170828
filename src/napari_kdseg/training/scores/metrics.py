"""Scores of a segmentation: overlap of every class, over all pixels and by tile; contours and calibration on demand.

The rule for empty masks: a class that occurs neither in the annotation nor in the prediction has no score (NaN) and is
left out of every mean, as in torchmetrics. One that occurs in only one of the two has Dice and IoU 0; MONAI's
``ignore_empty`` and EMKD's code leave it out where it is not annotated, which would hide false positives. Pixels that
nobody annotated (255) count for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from napari_kdseg.training.scores.calibration import CalibrationError
from napari_kdseg.training.scores.overlap import overlap_scores
from napari_kdseg.training.scores.surfaces import surface_scores

IGNORE = 255

TOLERANCE_UM, TOLERANCE_PX = 5.0, 2.0
"""Contours as near as this count as the same in the surface Dice: about the radius of a nucleus; two pixels."""


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


class SegmentationScore:
    """Adds up predictions and says how good they are.

    Parameters
    ----------
    classes
        Names, background first.
    unit
        Score contours and calibration too, which takes longer: distances in micrometres (``"um"``), for which
        :meth:`add` needs the scales of the tiles, or in pixels (``"px"``). ``None``: leave them out.
    """

    def __init__(self, classes: Sequence[str], unit: Literal["um", "px"] | None = None):
        self.classes = tuple(classes)
        self.unit = unit
        self.matrix = torch.zeros(len(classes), len(classes), dtype=torch.int64)
        self._counts: list[np.ndarray] = []
        self._contours: list[np.ndarray] = []
        self._calibration = CalibrationError()

    def add(
        self,
        prediction: Tensor,
        target: Tensor,
        *,
        probabilities: Tensor | None = None,
        scales: Sequence[float] | None = None,
    ) -> None:
        """Add a batch.

        Parameters
        ----------
        prediction, target
            Integer classes ``[N, H, W]``, both on the same device.
        probabilities
            ``[N, C, H, W]``, for the calibration error.
        scales
            Micrometres per pixel of each tile, for distances in micrometres.
        """
        matrices = torch.stack(
            [confusion_matrix(p, t, len(self.classes)) for p, t in zip(prediction, target, strict=True)]
        ).cpu()
        self.matrix += matrices.sum(0)
        counts = torch.stack([matrices.diagonal(dim1=1, dim2=2), matrices.sum(1), matrices.sum(2)], dim=1)
        self._counts += list(counts.numpy())
        if self.unit is None:
            return
        if probabilities is not None:
            self._calibration.add(probabilities, target, IGNORE)
        spacings = [1.0] * len(target) if self.unit == "px" or scales is None else scales
        pairs = zip(prediction.cpu().numpy(), target.cpu().numpy(), spacings, strict=True)
        self._contours += [self._contour_scores(p, t, spacing) for p, t, spacing in pairs]

    def _contour_scores(self, prediction: np.ndarray, target: np.ndarray, spacing: float) -> np.ndarray:
        """Return distance and surface Dice of the foreground classes of a tile, ``[2, C - 1]``."""
        labelled = target != IGNORE
        tolerance = TOLERANCE_UM if self.unit == "um" else TOLERANCE_PX
        scores = [
            surface_scores((prediction == c) & labelled, target == c, tolerance, spacing)
            for c in range(1, len(self.classes))
        ]
        return np.array(scores).T

    def summary(self) -> dict[str, float]:
        """Scores by name; NaN where nothing can be said.

        Returns
        -------
        dict
            - ``dice``, ``iou``, ``voe``, ``voe_emkd``, ``rvd``: mean over the foreground classes, pixels of all tiles
              pooled; see :func:`overlap_scores`
            - ``miou``: mean IoU of all classes, background included
            - ``accuracy``: share of right pixels, background included
            - ``tile_dice`` and so on: mean over the foreground classes of a tile, then over the tiles
            - where a unit is given: ``hd95_um`` or ``hd95_px``, the 95 % Hausdorff distance; ``nsd_5um`` or
              ``nsd_2px``, the surface Dice with that tolerance; both of each tile, averaged over the tiles, then over
              the foreground classes; ``ece``: the expected calibration error of all pixels
            - ``dice/<class>`` and so on: all but ``miou``, ``accuracy``, ``ece`` for each foreground class
        """
        total = int(self.matrix.sum())
        pooled = overlap_scores(*self._pooled())
        tiles = overlap_scores(*self._tiles())
        by_class = {name: scores[1:] for name, scores in pooled.items()}
        summary = {name: _mean(scores) for name, scores in by_class.items()}
        summary["miou"] = _mean(pooled["iou"])
        summary["accuracy"] = int(self.matrix.trace()) / total if total else math.nan
        summary |= {f"tile_{name}": _mean(_means(scores[:, 1:], axis=1)) for name, scores in tiles.items()}
        if self.unit is not None:
            of_contours = {
                name: _means(scores[:, 0], axis=0) for name, scores in self._contours_by_name().items()
            }
            by_class |= of_contours
            summary |= {name: _mean(scores) for name, scores in of_contours.items()}
            summary["ece"] = self._calibration.value()
        for index, label in enumerate(self.classes[1:]):
            summary |= {f"{name}/{label}": float(scores[index]) for name, scores in by_class.items()}
        return summary

    def tiles(self) -> list[dict[str, float]]:
        """Scores of each tile in the order they were added: ``dice/<class>`` and so on, foreground only."""
        scores = {name: values[:, 1:] for name, values in overlap_scores(*self._tiles()).items()}
        if self.unit is not None:
            scores |= {name: values[:, 0] for name, values in self._contours_by_name().items()}
        return [
            {
                f"{name}/{label}": float(values[tile, index])
                for index, label in enumerate(self.classes[1:])
                for name, values in scores.items()
            }
            for tile in range(len(self._counts))
        ]

    def _pooled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixels of each class, ``[C]``: in both, predicted, annotated."""
        matrix = self.matrix.numpy()
        return matrix.diagonal(), matrix.sum(axis=0), matrix.sum(axis=1)

    def _tiles(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the same of each tile, ``[tiles, C]``."""
        counts = np.array(self._counts, dtype=np.int64).reshape(-1, 3, len(self.classes))
        return counts[:, 0], counts[:, 1], counts[:, 2]

    def _contours_by_name(self) -> dict[str, np.ndarray]:
        """Return distances and surface Dice, ``[tiles, 1, C - 1]`` each."""
        scores = np.array(self._contours, dtype=np.float64).reshape(-1, 2, len(self.classes) - 1)
        tolerance = TOLERANCE_UM if self.unit == "um" else TOLERANCE_PX
        return {f"hd95_{self.unit}": scores[:, :1], f"nsd_{tolerance:g}{self.unit}": scores[:, 1:]}


def _means(values: np.ndarray, axis: int) -> np.ndarray:
    """Means along an axis of the values that are numbers; NaN where none is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(axis) / known.sum(axis)


def _mean(values: np.ndarray) -> float:
    return float(_means(values, axis=0)) if values.size else math.nan
