"""What several losses share: sizes brought together, labels on a feature grid, means over labelled pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_kdseg.errors import ConfigurationError

EPSILON = 1e-8
"""Added where something is divided by a norm that may be zero."""


def at_least_float32(values: Tensor) -> Tensor:
    """Bring half precision to float32; float64 stays, so that a loss can be checked without rounding."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def at_size(output: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """Bring an output of another stride ``[N, C, h, w]`` to height and width ``size`` (bilinear)."""
    if output.shape[-2:] == tuple(size):
        return output
    return F.interpolate(output, size=tuple(size), mode="bilinear", align_corners=False)


def same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in float32 at least, the teacher detached and resized (bilinear) to the student's size."""
    return at_least_float32(student), at_size(at_least_float32(teacher.detach()), student.shape[-2:])


def same_shape(student: Tensor, teacher: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """As :func:`same_size`, and the channels must agree.

    Raises
    ------
    ConfigurationError
        If batch size or channels differ; ``what`` names the pair (``"output"``, ``"feature"``).
    """
    if student.shape[:2] != teacher.shape[:2]:
        raise ConfigurationError(
            f"The student's {what} has shape {tuple(student.shape)} but the teacher's {tuple(teacher.shape)}. "
            "Batch size and channels must agree: choose other layers, or a teacher and a student of the same task."
        )
    return same_size(student, teacher)


def averaged_squares(output: Tensor, side: int) -> Tensor:
    """Average ``[N, C, H, W]`` over squares of ``side`` pixels, to ``[N, C, ceil(H / side), ceil(W / side)]``."""
    if side == 1:
        return output
    height, width = (-(-length // side) for length in output.shape[-2:])
    return F.adaptive_avg_pool2d(output, (height, width))


def labels_on_grid(target: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Bring labels ``[N, H, W]`` to a feature grid ``(h, w)`` by nearest neighbour."""
    if tuple(target.shape[-2:]) == tuple(size):
        return target
    return F.interpolate(target[:, None].float(), size=tuple(size), mode="nearest")[:, 0].long()


def labelled_on_grid(target: Tensor | None, feature: Tensor, ignore_index: int) -> Tensor:
    """Say which pixels of a feature ``[N, c, h, w]`` are labelled, bool ``[N, h, w]``; all are without a target."""
    if target is None:
        return torch.ones_like(feature[:, 0], dtype=torch.bool)
    return labels_on_grid(target, feature.shape[-2:]) != ignore_index


def labelled_mean(values: Tensor, target: Tensor | None, ignore_index: int) -> Tensor:
    """Mean of ``values [N, h, w]`` over the pixels that are not ignored; 0, with a graph, where all are."""
    if target is None:
        return values.mean()
    labelled = labels_on_grid(target, values.shape[-2:]) != ignore_index
    # torch.where, not multiplication: a value that is not finite at an ignored pixel must not spread
    return torch.where(labelled, values, torch.zeros_like(values)).sum() / labelled.sum().clamp(min=1)
