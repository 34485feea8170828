"""Whether a network is as sure as it is right: the expected calibration error.

Guo et al., On calibration of modern neural networks, ICML 2017.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BINS = 15


class CalibrationError:
    """Adds up confidence and rightness of pixels by confidence, in ``bins`` bins of the same width.

    The value is that of torchmetrics' ``multiclass_calibration_error`` (norm l1), which would keep every pixel in
    memory; as there, a confidence of exactly 1 has a bin of its own.
    """

    def __init__(self, bins: int = BINS):
        self.bins = bins
        self._sums = torch.zeros(3, bins + 1, dtype=torch.float64)

    def add(self, probabilities: Tensor, target: Tensor, ignore_index: int = 255) -> None:
        """Add a batch: probabilities ``[N, C, H, W]`` and classes ``[N, H, W]``."""
        confidence, prediction = probabilities.float().max(dim=1)
        labelled = target != ignore_index
        confidence, right = confidence[labelled], (prediction == target)[labelled]
        edges = torch.linspace(0, 1, self.bins + 1, device=confidence.device)
        bin_of = (torch.bucketize(confidence, edges, right=True) - 1).clamp(0, self.bins)
        for row, values in enumerate((torch.ones_like(confidence), confidence, right)):
            self._sums[row] += torch.bincount(bin_of, values.double(), minlength=self.bins + 1).cpu()

    def value(self) -> float:
        """Mean over the pixels of |share of right pixels - mean confidence| of their bin; NaN without pixels."""
        count, confidence, right = self._sums
        pixels = float(count.sum())
        return float((right - confidence).abs().sum()) / pixels if pixels else math.nan
