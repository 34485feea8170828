"""LOCAL: the teacher's probabilities, and how much neighbours differ (Xie et al., BMVC 2018).

:func:`zero_order` compares pixels, :func:`first_order` each pixel's difference from its neighbours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_kdseg.distillation.losses.common import labelled_mean, labels_on_grid, same_shape

NEIGHBOURS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0))


def zero_order(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor | None = None, *, ignore_index: int = 255
) -> Tensor:
    r"""Squared distance of the class probabilities: :math:`\operatorname{mean}_{px} \|p_S - p_T\|_2^2`.

    Parameters
    ----------
    student_logits
        ``[N, C, H, W]`` logits.
    teacher_logits
        ``[N, C, h, w]``; resized (bilinear) to the student's size where it differs. No gradient flows into them.
    target
        ``[N, H, W]`` labels; only used to leave out ignored pixels. ``None`` counts every pixel.
    ignore_index
        Label of pixels that count for nothing.

    Returns
    -------
    Tensor
        Scalar float32 in [0, 2], and 0 where both agree; 0 with a graph if no pixel counts.

    Raises
    ------
    ConfigurationError
        If the two differ in batch size or number of classes.

    Notes
    -----
    Xie et al., Improving Fast Segmentation With Teacher-student Learning: the zero-order knowledge. We had the
    method only as later papers describe it, not the paper itself; the form is that reading. The original also
    learns from unlabelled images, which this loss allows (``target=None``).
    """
    student, teacher = same_shape(student_logits, teacher_logits, "output")
    distance = (student.softmax(dim=1) - teacher.softmax(dim=1)).square().sum(dim=1)
    return labelled_mean(distance, target, ignore_index)


def first_order(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor | None = None, *, ignore_index: int = 255
) -> Tensor:
    r"""Squared distance of the consistency maps.

    .. math::
        L = \operatorname{mean}_{px} \bigl(c_S - c_T\bigr)^2, \qquad
        c(i) = \operatorname{mean}_{j \in \mathcal{N}_8(i)} \|z(i) - z(j)\|_2

    Parameters
    ----------
    student_logits, teacher_logits, target, ignore_index
        As in :func:`zero_order`.

    Returns
    -------
    Tensor
        Scalar float32, at least 0, and 0 where both agree; 0 with a graph if no pixel has a neighbour.

    Raises
    ------
    ConfigurationError
        If the two differ in batch size or number of classes.

    Notes
    -----
    The first-order knowledge of Xie et al.; see :func:`zero_order` for what we had of the paper. Our decisions: it is
    taken on logits, not on probabilities; neighbours outside the image or ignored are left out of the mean (no
    padding), and a pixel left without neighbours does not count.
    """
    student, teacher = same_shape(student_logits, teacher_logits, "output")
    labelled = torch.ones_like(student[:, 0], dtype=torch.bool)
    if target is not None:
        labelled = labels_on_grid(target, student.shape[-2:]) != ignore_index
    difference_student, counted = _consistency(student, labelled)
    difference_teacher, _ = _consistency(teacher, labelled)
    distance = (difference_student - difference_teacher).square()
    return torch.where(counted, distance, torch.zeros_like(distance)).sum() / counted.sum().clamp(min=1)


def _consistency(logits: Tensor, labelled: Tensor) -> tuple[Tensor, Tensor]:
    """Mean distance ``[N, H, W]`` of each pixel from its labelled neighbours, and which pixels have any."""
    height, width = logits.shape[-2:]
    padded, padded_labelled = F.pad(logits, (1, 1, 1, 1)), F.pad(labelled, (1, 1, 1, 1))
    total = torch.zeros_like(logits[:, 0])
    neighbours = torch.zeros_like(total)
    for dy, dx in NEIGHBOURS:
        rows, columns = slice(1 + dy, 1 + dy + height), slice(1 + dx, 1 + dx + width)
        pair = labelled & padded_labelled[:, rows, columns]
        distance = torch.linalg.vector_norm(logits - padded[:, :, rows, columns], dim=1)
        total = total + torch.where(pair, distance, torch.zeros_like(distance))
        neighbours = neighbours + pair
    return total / neighbours.clamp(min=1), neighbours > 0
