"""Prediction map distillation (PMD): EMKD's divergence between the output maps, at every pixel.

Qin et al., Efficient Medical Image Segmentation Based on Knowledge Distillation, TMI 2021, eq. 1.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from napari_kdseg.distillation.losses.common import labelled_mean, same_shape
from napari_kdseg.errors import ConfigurationError


def prediction_map(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 4.0,
    direction: Literal["forward", "reverse"] = "forward",
    ignore_index: int = 255,
) -> Tensor:
    r"""Divergence of the softened output maps, averaged over pixels.

    With :math:`p = \mathrm{softmax}(z / \tau)`,

    .. math::
        L_{PM} = \tau^2 \operatorname{mean}_{px} \mathrm{KL}(p^t \| p^s) \quad \text{(forward)}, \qquad
        L_{PM} = \tau^2 \operatorname{mean}_{px} \mathrm{KL}(p^s \| p^t) \quad \text{(reverse, eq. 1)}

    Parameters
    ----------
    student
        ``[N, C, H, W]`` logits.
    teacher
        ``[N, C, h, w]`` logits; resized (bilinear) to the student's size where it differs. No gradient flows
        into them.
    target
        ``[N, H, W]`` labels; only used to leave out ignored pixels. ``None`` counts every pixel.
    temperature
        :math:`\tau > 0`.
    direction
        ``"forward"``: the teacher is the reference, as in Hinton's distillation. ``"reverse"``: the student is.
    ignore_index
        Label of pixels that count for nothing.

    Returns
    -------
    Tensor
        Scalar float32, at least 0, and 0 where both agree; 0 with a graph if no pixel counts.

    Raises
    ------
    ConfigurationError
        If batch size or number of classes differ, the temperature is not positive, or there is no such
        direction.

    Notes
    -----
    The paper prints KL(student || teacher) and no temperature; the authors' released code has KL(teacher || student),
    :math:`\tau = 4` and the factor 16. The defaults are the code's (they are what the printed weight 0.1
    belongs to); ``direction="reverse", temperature=1`` is the paper's. The paper's N = W x H has no batch index:
    the mean runs over the pixels of all images. With more than two classes, which the code was not made for, it divides
    by half the number of values instead.
    """
    if temperature <= 0:
        raise ConfigurationError(f"The temperature must be above zero, not {temperature}.")
    if direction not in ("forward", "reverse"):
        raise ConfigurationError(f"The direction must be 'forward' or 'reverse', not '{direction}'.")
    student, teacher = same_shape(student, teacher, "output")
    log_student = F.log_softmax(student / temperature, dim=1)
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    log_p, log_q = (log_teacher, log_student) if direction == "forward" else (log_student, log_teacher)
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    return temperature**2 * labelled_mean(divergence, target, ignore_index)
