"""Spatial similarity of pixels, plain (SS) and channel-mixed (CMSS): CoCo DistillNet (Zou and Sun, BIBM 2021, eq. 1-2).

:func:`spatial_similarity` matches it between student and teacher, rows SS and CMSS of the paper's Table I.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_kdseg.distillation.losses.common import at_least_float32
from napari_kdseg.errors import ConfigurationError

NO_DIRECTION = 1e-12
"""A pixel whose feature is shorter than this resembles no other, and teaches nothing."""


def spatial_similarity(
    student: Tensor | tuple[Tensor, ...],
    teacher: Tensor | tuple[Tensor, ...],
    target: Tensor | None = None,  # noqa: ARG001
    *,
    mixed: bool = False,
    side: int = 32,
    ignore_index: int = 255,  # noqa: ARG001
) -> Tensor:
    r"""Mean squared difference of student's and teacher's similarity maps M, the mean over layers.

    .. math::
        L = \frac{1}{n} \sum_l \operatorname{mean}_{N, p, q} (M^S_{pq} - M^T_{pq})^2

    Parameters
    ----------
    student, teacher
        Feature ``[N, c, h, w]``, or as many of each, compared layer by layer. Channels and sizes may differ.
    target
        Not used: the loss needs no labels.
    mixed
        ``False`` for SS, ``True`` for CMSS: see :func:`unit_pixels`.
    side
        Features are average-pooled until no side is longer, as ``M`` has :math:`(hw)^2` entries an image.
    ignore_index
        Not used.

    Returns
    -------
    Tensor
        Scalar float32 of 0 to 4, and 0 where both agree.

    Raises
    ------
    ConfigurationError
        If the numbers of layers, or the batch sizes, differ.

    Notes
    -----
    The paper gives no loss for the two rows. We take the mean squared difference of M, on features pooled to the
    smaller size of the two and to ``side``; the mean over layers is ours too.
    """
    students, teachers = as_layers(student, teacher)
    values = []
    for of_student, of_teacher in zip(students, teachers, strict=True):
        of_student, of_teacher = pooled_alike(of_student, of_teacher.detach(), side)
        difference = _similarity(of_student, mixed) - _similarity(of_teacher, mixed)
        values.append(difference.square().mean())
    return torch.stack(values).mean()


def unit_pixels(feature: Tensor, mixed: bool = True) -> Tensor:
    r"""Features of all pixels, of length 1 each, channels mixed before if asked for.

    .. math::
        a_j = \max_p f_{pj}, \quad w = \mathrm{softmax}(a), \quad g'_{pj} = f_{pj} w_j, \quad
        u_p = g'_p / \lVert g'_p \rVert_2

    so that the similarity of two pixels (eq. 2) is :math:`m_{pq} = u_p \cdot u_q`.

    Parameters
    ----------
    feature
        ``[N, c, h, w]``.
    mixed
        Whether channels are weighted with ``w`` (CMSS); ``False`` takes ``w = 1`` (SS).

    Returns
    -------
    Tensor
        ``[N, c, h * w]`` in float32, or float64 where the feature is. A pixel without a direction stays 0 and gets
        no gradient.

    Notes
    -----
    Eq. 2 as printed divides by :math:`\sqrt{\sum_z g'_{pz}}`, without a square: not a number where the sum is
    negative, as it is at the linear layers the authors tap. We take the cosine.
    """
    pixels = at_least_float32(feature).flatten(2)
    if mixed:
        pixels = pixels * pixels.amax(dim=2, keepdim=True).softmax(dim=1)
    length = torch.linalg.vector_norm(pixels, dim=1, keepdim=True)
    return pixels * torch.where(length > NO_DIRECTION, length.clamp(min=NO_DIRECTION).reciprocal(), 0.0)


def as_layers(
    student: Tensor | tuple[Tensor, ...], teacher: Tensor | tuple[Tensor, ...]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return both as tuples of layers.

    Raises
    ------
    ConfigurationError
        If the numbers of layers, or the batch sizes, differ.
    """
    students = (student,) if isinstance(student, Tensor) else tuple(student)
    teachers = (teacher,) if isinstance(teacher, Tensor) else tuple(teacher)
    if len(students) != len(teachers):
        raise ConfigurationError(
            f"There are {len(students)} layers of the student but {len(teachers)} of the teacher. Name as many of both."
        )
    if len({len(layer) for layer in (*students, *teachers)}) > 1:
        raise ConfigurationError(
            f"The student's layers are of {len(students[0])} images but the teacher's of {len(teachers[0])}. Show "
            "both the same batch."
        )
    return students, teachers


def pooled_alike(first: Tensor, second: Tensor, side: int | None = None) -> tuple[Tensor, Tensor]:
    """Average-pool the larger of two features to the size of the smaller, and no side longer than ``side``."""
    height, width = (min(a, b, side or a) for a, b in zip(first.shape[-2:], second.shape[-2:], strict=True))
    size = (height, width)
    first, second = (
        feature if feature.shape[-2:] == size else F.adaptive_avg_pool2d(at_least_float32(feature), size)
        for feature in (first, second)
    )
    return first, second


def _similarity(feature: Tensor, mixed: bool) -> Tensor:
    """Return M ``[N, hw, hw]``; in full precision under autocast too."""
    with torch.autocast(feature.device.type, enabled=False):
        pixels = unit_pixels(feature, mixed)
        return pixels.mT @ pixels
