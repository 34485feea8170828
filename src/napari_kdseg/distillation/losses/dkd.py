"""Decoupled knowledge distillation (Zhao et al., CVPR 2022), taken at every pixel.

KD is split into what it says of the true class (TCKD) and how it ranks the other classes (NCKD).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_kdseg.distillation.losses.common import labelled_mean, labels_on_grid, same_shape
from napari_kdseg.errors import ConfigurationError


def dkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    ignore_index: int = 255,
) -> Tensor:
    r"""Weighted sum of target-class and non-target-class distillation, averaged over the labelled pixels.

    With the true class ``y`` of a pixel, :math:`p = \mathrm{softmax}(z / \tau)`, :math:`b = (p_y, 1 - p_y)` and
    :math:`\hat p_c = p_c / (1 - p_y)` over the ``C - 1`` classes :math:`c \ne y`,

    .. math::
        L = \tau^2 \operatorname{mean}_{px} \bigl(\alpha\, \mathrm{KL}(b_T \| b_S)
            + \beta\, \mathrm{KL}(\hat p_T \| \hat p_S)\bigr)

    Parameters
    ----------
    student_logits
        ``[N, C, H, W]`` logits, ``C >= 2``.
    teacher_logits
        ``[N, C, h, w]``; resized (bilinear) to the student's size where it differs. No gradient flows into them.
    target
        ``[N, H, W]`` labels. They are needed: both parts are defined by the true class.
    alpha, beta
        Weights :math:`\alpha` of TCKD and :math:`\beta` of NCKD.
    temperature
        :math:`\tau > 0`.
    ignore_index
        Label of pixels that count for nothing.

    Returns
    -------
    Tensor
        Scalar float32, at least 0, and 0 where both agree; 0 with a graph if no pixel counts.

    Raises
    ------
    ConfigurationError
        If there is no target, there are fewer than two classes, the shapes differ or the temperature is not
        positive.

    Notes
    -----
    Zhao et al., Decoupled Knowledge Distillation, is written for one image and its class; we take it at
    every pixel and average over pixels. With two classes NCKD is 0 and TCKD is KD. The authors' code hides the
    true class from NCKD by subtracting 1000 from its logit, which half precision and large logits defeat; we
    leave it out exactly, with minus infinity.
    """
    if target is None:
        raise ConfigurationError(
            "DKD needs the ground truth: it treats the true class of a pixel apart. "
            "Use labelled images or another method."
        )
    if temperature <= 0:
        raise ConfigurationError(f"The temperature must be above zero, not {temperature}.")
    student, teacher = same_shape(student_logits, teacher_logits, "output")
    if student.shape[1] < 2:
        raise ConfigurationError("DKD needs at least two classes, background and one other.")
    target = labels_on_grid(target, student.shape[-2:])
    true_class = torch.where(target == ignore_index, 0, target)
    hidden = torch.zeros_like(student, dtype=torch.bool).scatter_(1, true_class[:, None], True)
    student, teacher = student / temperature, teacher / temperature
    divergence = alpha * _target_class(student, teacher, hidden) + beta * _other_classes(
        student, teacher, hidden
    )
    return temperature**2 * labelled_mean(divergence, target, ignore_index)


def _target_class(student: Tensor, teacher: Tensor, hidden: Tensor) -> Tensor:
    """TCKD ``[N, H, W]``: KL between (true class, all others); ``hidden`` marks the true class."""

    def log_true_and_others(logits: Tensor) -> Tensor:
        true = logits.masked_fill(~hidden, -torch.inf).logsumexp(dim=1)
        others = logits.masked_fill(hidden, -torch.inf).logsumexp(dim=1)
        return F.log_softmax(torch.stack([true, others], dim=1), dim=1)

    log_p, log_q = log_true_and_others(teacher), log_true_and_others(student)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def _other_classes(student: Tensor, teacher: Tensor, hidden: Tensor) -> Tensor:
    """NCKD ``[N, H, W]``: KL between the softmax over the classes that are not ``hidden``."""

    def log_others(logits: Tensor) -> Tensor:
        return F.log_softmax(logits.masked_fill(hidden, -torch.inf), dim=1).masked_fill(hidden, 0.0)

    log_p, log_q = log_others(teacher), log_others(student)
    return (log_p.exp().masked_fill(hidden, 0.0) * (log_p - log_q)).sum(dim=1)
