"""Distillation of the output map: the KL divergence of Hinton et al. (2015, arXiv 1503.02531), taken at every pixel.

:func:`kd` reads the teacher's logits; :func:`soft_label_kl` reads probabilities, as PLC-KD's corrected soft
labels are (Wang et al., MICCAI 2024, eq. 1).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from napari_kdseg.distillation.losses.common import same_size
from napari_kdseg.errors import ConfigurationError

SMALLEST_PROBABILITY = 1e-7


def soft_label_kl(
    student_logits: Tensor,
    teacher_probabilities: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 1.0,
    ignore_index: int = 255,
) -> Tensor:
    r"""Divergence of the student from soft labels given as probabilities.

    .. math::
        L = \tau^2 \operatorname{mean}_{px} \mathrm{KL}\bigl(P_\tau \,\|\, \mathrm{softmax}(z_S / \tau)\bigr),
        \qquad P_\tau = P^{1/\tau} / \textstyle\sum_c P_c^{1/\tau}

    Parameters
    ----------
    student_logits
        ``[N, C, H, W]`` logits :math:`z_S`.
    teacher_probabilities
        ``[N, C, h, w]`` soft labels :math:`P`, e.g. PLC-KD's :math:`P^U`; resized (bilinear,
        ``align_corners=False``) to the student's size where it differs. No gradient flows into them.
    target
        ``[N, H, W]`` labels; only used to leave out ignored pixels. ``None`` counts every pixel.
    temperature
        :math:`\tau > 0`. :math:`P^{1/\tau}`, renormalised, equals ``softmax(z / tau)`` where ``P =
        softmax(z)``.
    ignore_index
        Label of pixels that count for nothing.

    Returns
    -------
    Tensor
        Scalar float32, at least 0, and 0 where both agree; 0 with a graph if no pixel counts.

    Raises
    ------
    ConfigurationError
        If the shapes differ or the temperature is not positive.

    Notes
    -----
    The paper says only "KL divergence paradigm". We take the direction teacher || student and the factor
    :math:`\tau^2`, as Hinton et al. and the reference implementations do. ``P`` is clamped at 1e-7 before the
    logarithm.
    """
    student_logits, teacher_probabilities = same_size(student_logits, teacher_probabilities)
    _check(student_logits, teacher_probabilities, temperature)
    log_teacher = teacher_probabilities.clamp(min=SMALLEST_PROBABILITY).log()
    return _pixel_kl(student_logits, log_teacher, target, temperature, ignore_index)


def kd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 1.0,
    ignore_index: int = 255,
) -> Tensor:
    r"""Hinton's distillation at every pixel: :math:`\tau^2 \operatorname{mean}_{px} \mathrm{KL}(p_T \| p_S)`.

    Parameters
    ----------
    student_logits
        ``[N, C, H, W]``.
    teacher_logits
        ``[N, C, h, w]``; resized (bilinear, ``align_corners=False``) to the student's size where it differs.
        No gradient flows into them.
    target, temperature, ignore_index
        As in :func:`soft_label_kl`.

    Returns
    -------
    Tensor
        Scalar float32, at least 0, and 0 where both agree.

    Raises
    ------
    ConfigurationError
        If the two differ in batch size or number of classes, or the temperature is not positive.

    Notes
    -----
    The mean is over pixels, with the sum over classes inside, as in CIRKD's code. ``F.kl_div(reduction="mean")``
    divides by the number of classes too, as IFVD's code does, and ``"batchmean"`` by the batch size only.
    """
    student_logits, teacher_logits = same_size(student_logits, teacher_logits)
    _check(student_logits, teacher_logits, temperature)
    return _pixel_kl(student_logits, teacher_logits, target, temperature, ignore_index)


def _pixel_kl(
    student_logits: Tensor, log_teacher: Tensor, target: Tensor | None, temperature: float, ignore_index: int
) -> Tensor:
    """``tau^2 mean_px KL(softmax(log_teacher / tau) || softmax(student / tau))``; a log-probability is a logit too."""
    log_p = F.log_softmax(log_teacher / temperature, dim=1)
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    if target is None:
        return temperature**2 * divergence.mean()
    labelled = target != ignore_index
    return temperature**2 * divergence[labelled].sum() / labelled.sum().clamp(min=1)


def _check(student: Tensor, teacher: Tensor, temperature: float) -> None:
    if student.shape != teacher.shape:
        raise ConfigurationError(
            f"The student's output has shape {tuple(student.shape)} but the teacher's {tuple(teacher.shape)}. "
            "Both must have the same classes; choose a teacher and a student made for the same task."
        )
    if temperature <= 0:
        raise ConfigurationError(f"The temperature must be above zero, not {temperature}.")
