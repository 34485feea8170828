"""Logit standardisation: KD on z-scored logits, the student free in scale and shift (Sun et al., CVPR 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_kdseg.distillation.losses.common import same_shape
from napari_kdseg.distillation.losses.knowledge_distillation import kd
from napari_kdseg.errors import ConfigurationError

SMALLEST_DEVIATION = 1e-7
"""Added to the standard deviation, as the authors' code does."""
RELATIVE_SPREAD = 1e-6
"""Logits whose deviation, relative to the largest of them, is below this count as all equal."""


def logit_standardisation(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 2.0,
    ignore_index: int = 255,
) -> Tensor:
    r"""KD between the standardised logits of each pixel.

    .. math::
        L = \tau^2 \operatorname{mean}_{px} \mathrm{KL}\bigl(\mathrm{softmax}(\mathcal{Z}(z_T) / \tau) \,\|\,
            \mathrm{softmax}(\mathcal{Z}(z_S) / \tau)\bigr), \qquad
        \mathcal{Z}(z) = \frac{z - \bar z}{10^{-7} + \sigma(z)}

    with mean and standard deviation over the classes of a pixel.

    Parameters
    ----------
    student_logits
        ``[N, C, H, W]`` logits, ``C >= 2``.
    teacher_logits
        ``[N, C, h, w]``; resized (bilinear) to the student's size where it differs. No gradient flows into them.
    target
        ``[N, H, W]`` labels; only used to leave out ignored pixels. ``None`` counts every pixel.
    temperature
        Base temperature :math:`\tau > 0`.
    ignore_index
        Label of pixels that count for nothing.

    Returns
    -------
    Tensor
        Scalar float32, at least 0, and 0 where both agree up to scale and shift; 0 with a graph if no pixel
        counts.

    Raises
    ------
    ConfigurationError
        If there are fewer than two classes, batch size or classes differ, or the temperature is not positive.

    Notes
    -----
    Sun et al., Logit Standardization in Knowledge Distillation. The authors' code standardises over
    the last dimension, which for ``[N, C, H, W]`` would be the width; the classes are dimension 1. As in their code
    the standard deviation is the unbiased one. Two classes always standardise to :math:`\pm 1/\sqrt 2`: no gradient.

    Logits that are all equal have no z-score; we only centre them, which gives 0 and keeps the gradient of ordinary
    size (dividing by 1e-7 would make it ten million times larger).
    """
    student, teacher = same_shape(student_logits, teacher_logits, "output")
    if student.shape[1] < 2:
        raise ConfigurationError(
            "Logit standardisation needs at least two classes, background and one other."
        )
    return kd(
        _standardise(student),
        _standardise(teacher),
        target,
        temperature=temperature,
        ignore_index=ignore_index,
    )


def _standardise(logits: Tensor) -> Tensor:
    """Z-score over the classes."""
    centred = logits - logits.mean(dim=1, keepdim=True)
    deviation = logits.std(dim=1, keepdim=True)
    varied = deviation.detach() > RELATIVE_SPREAD * logits.detach().abs().amax(dim=1, keepdim=True)
    return centred / torch.where(varied, SMALLEST_DEVIATION + deviation, torch.ones_like(deviation))
