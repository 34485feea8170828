"""How a network sees an image that was prepared for another: normalised its own way, and at its own size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Statistics = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of each channel, of values from 0 to 1."""


class View(nn.Module):
    """Turn the input of one network into that of another; without arguments, leave it as it is.

    Parameters
    ----------
    given, wanted
        Statistics the input was normalised with, and those the other network wants; ``None`` leaves them.
    factor
        Sides of the image wanted relative to those given.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, given: Statistics | None = None, wanted: Statistics | None = None, factor: float = 1.0
    ) -> None:
        super().__init__()
        self.factor = factor
        self.renormalises = given is not None and wanted is not None and given != wanted
        if given is None or wanted is None:
            given = wanted = ((0.0,), (1.0,))
        (mean, std), (other_mean, other_std) = (map(_column, statistics) for statistics in (given, wanted))
        self.register_buffer("scale", std / other_std, persistent=False)
        self.register_buffer("shift", (mean - other_mean) / other_std, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the image ``[N, D, H, W]`` as the other network takes it; enlarged or reduced with antialiasing."""
        if self.renormalises:
            image = torch.addcmul(self.shift, image, self.scale)
        size = self.size(image.shape[-2:])
        if size == tuple(image.shape[-2:]):
            return image
        return F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)

    def size(self, size: Sequence[int]) -> tuple[int, int]:
        """Height and width that an image of ``size`` has afterwards."""
        height, width = (max(1, round(side * self.factor)) for side in size)
        return height, width

    def shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """``(D, H, W)`` that an image of ``shape`` has afterwards."""
        return (shape[0], *self.size(shape[1:]))


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float32)[:, None, None]
