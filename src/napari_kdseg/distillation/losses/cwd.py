"""Channel-wise distillation: each channel's activation over space, as a distribution (Shu et al., ICCV 2021).

The same loss is used on logits and on features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_kdseg.distillation.losses.common import labels_on_grid, same_shape
from napari_kdseg.errors import ConfigurationError


def cwd(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 4.0,
    ignore_index: int = 255,
) -> Tensor:
    r"""Divergence between the spatial distributions of each channel.

    With :math:`\phi_c(i) = \exp(y_{c,i} / \tau) / \sum_j \exp(y_{c,j} / \tau)`, the softmax of channel ``c``
    over the positions of one image,

    .. math::
        L = \frac{\tau^2}{N C} \sum_{n, c, i} \phi_T \log \frac{\phi_T}{\phi_S}

    Parameters
    ----------
    student
        ``[N, C, h, w]`` logits, or features that a connector has brought to the teacher's channels.
    teacher
        ``[N, C, h', w']``; resized (bilinear) to the student's size where it differs. No gradient flows into it.
    target
        ``[N, H, W]`` labels, brought to ``h x w`` by nearest neighbour; only used to leave out ignored pixels.
    temperature
        :math:`\tau > 0`; 4 in the paper.
    ignore_index
        Label of pixels that count for nothing.

    Returns
    -------
    Tensor
        Scalar float32, at least 0, and 0 where both agree up to a constant in each channel; 0 with a graph
        if no pixel counts.

    Raises
    ------
    ConfigurationError
        If batch size or channels differ, or the temperature is not positive.

    Notes
    -----
    Shu et al., Channel-wise Knowledge Distillation for Dense Prediction. The sum is divided by the channels that are
    compared; CIRKD's code, which enlarges a student of fewer channels first, divides by those it had before.

    Two decisions of ours. The paper does not speak of ignored pixels: where a target is given they are left out of the
    spatial softmax of both maps, so that what a network answers there moves no mass. The paper divides by the channels
    of one image; we also divide by the number N of images, as the code does, and do not count an image without a
    labelled pixel.
    """
    if temperature <= 0:
        raise ConfigurationError(f"The temperature must be above zero, not {temperature}.")
    student, teacher = same_shape(student, teacher, "map")
    labelled = torch.ones_like(student[:, 0], dtype=torch.bool)
    if target is not None:
        labelled = labels_on_grid(target, student.shape[-2:]) != ignore_index
    counted = labelled.flatten(1).any(dim=1)
    # an image that is not counted keeps its pixels: a softmax over none is not a number
    out = ~(labelled | ~counted[:, None, None]).flatten(1)[:, None]
    log_student = _log_softmax_over_space(student / temperature, out)
    log_teacher = _log_softmax_over_space(teacher / temperature, out)
    inside = log_teacher.exp().masked_fill(out, 0.0)
    divergence = (inside * (log_teacher - log_student)).sum(dim=2).mean(dim=1)
    total = torch.where(counted, divergence, torch.zeros_like(divergence)).sum()
    return temperature**2 * total / counted.sum().clamp(min=1)


def _log_softmax_over_space(maps: Tensor, out: Tensor) -> Tensor:
    """Log-softmax of ``[N, C, h, w]`` over positions, as ``[N, C, hw]``; positions that are out hold 0."""
    return F.log_softmax(maps.flatten(2).masked_fill(out, -torch.inf), dim=2).masked_fill(out, 0.0)
