"""DIST: the student keeps the teacher's correlations, not its exact values (Huang et al., NeurIPS 2022).

:func:`dist_inter` correlates the classes at each pixel, :func:`dist_intra` the pixels of each class.
"""

from __future__ import annotations

import torch
from torch import Tensor

from napari_kdseg.distillation.losses.common import labelled_mean, labels_on_grid, same_shape
from napari_kdseg.errors import ConfigurationError

RELATIVE_SPREAD = 1e-6
"""Numbers whose deviations from their mean, relative to their norm, are below this count as all equal."""


def dist_inter(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 1.0,
    ignore_index: int = 255,
) -> Tensor:
    r"""Inter-class relation: Pearson correlation over the classes of each pixel.

    .. math::
        L = \tau^2 \operatorname{mean}_{px} \bigl(1 - \rho_c(p_S, p_T)\bigr), \qquad p = \mathrm{softmax}(z / \tau)

    Parameters
    ----------
    student_logits
        ``[N, C, H, W]`` logits.
    teacher_logits
        ``[N, C, h, w]``; resized (bilinear) to the student's size where it differs. No gradient flows into them.
    target
        ``[N, H, W]`` labels; only used to leave out ignored pixels. ``None`` counts every pixel.
    temperature
        :math:`\tau > 0`.
    ignore_index
        Label of pixels that count for nothing.

    Returns
    -------
    Tensor
        Scalar float32 in :math:`[0, 2 \tau^2]`, 0 where both agree up to scale and shift; 0 with a graph if
        no pixel counts.

    Raises
    ------
    ConfigurationError
        If batch size or number of classes differ, or the temperature is not positive.

    Notes
    -----
    Huang et al., Knowledge Distillation from A Stronger Teacher, at every pixel instead of every image. The factor
    :math:`\tau^2` is that of the authors' code for classification; their code for segmentation has no temperature, and
    adds 0.4 times the same loss of an auxiliary output, which we do not have. With two classes the correlation is
    always 1 or -1, so there is no gradient.

    The correlation of numbers that are all equal is undefined. We decide: where the teacher's are equal there is
    nothing to keep, and the pixel counts as 0; where only the student's are equal the correlation is 0, with a
    gradient of ordinary size towards the teacher's (dividing by a clamped norm would make it a hundred million
    times larger).
    """
    student, teacher = _probabilities(student_logits, teacher_logits, temperature)
    return temperature**2 * labelled_mean(_distance(student, teacher, dim=1), target, ignore_index)


def dist_intra(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 1.0,
    ignore_index: int = 255,
) -> Tensor:
    r"""Intra-class relation: Pearson correlation of each class over the labelled pixels of the whole batch.

    .. math::
        L = \tau^2 \operatorname{mean}_{c} \bigl(1 - \rho_{px}(p_S, p_T)\bigr), \qquad p = \mathrm{softmax}(z / \tau)

    Parameters
    ----------
    student_logits, teacher_logits, target, temperature, ignore_index
        As in :func:`dist_inter`.

    Returns
    -------
    Tensor
        Scalar float32 in :math:`[0, 2 \tau^2]`, 0 where both agree up to scale and shift of each class; 0 with
        a graph if no pixel counts.

    Raises
    ------
    ConfigurationError
        If batch size or number of classes differ, or the temperature is not positive.

    Notes
    -----
    The intra-class relation of Huang et al., with the pixels of the batch in the place of its images: the value
    depends on which images are together in a batch. Constant maps are treated as in :func:`dist_inter`.
    """
    student, teacher = _probabilities(student_logits, teacher_logits, temperature)
    student, teacher = student.movedim(1, 0).flatten(1), teacher.movedim(1, 0).flatten(1)
    if target is not None:
        labelled = labels_on_grid(target, student_logits.shape[-2:]).flatten() != ignore_index
        student, teacher = student[:, labelled], teacher[:, labelled]
    return temperature**2 * _distance(student, teacher, dim=1).mean()


def _probabilities(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    if temperature <= 0:
        raise ConfigurationError(f"The temperature must be above zero, not {temperature}.")
    student, teacher = same_shape(student, teacher, "output")
    return (student / temperature).softmax(dim=1), (teacher / temperature).softmax(dim=1)


def _distance(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """1 - Pearson correlation along ``dim``; 0 where the teacher is constant."""
    student, _ = _centred_unit(student, dim)
    teacher, varied = _centred_unit(teacher, dim)
    correlation = (student * teacher).sum(dim)
    return torch.where(varied, 1.0 - correlation, torch.zeros_like(correlation))


def _centred_unit(values: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Subtract the mean and divide by the norm, which is taken as 1 where values are constant; and where they vary."""
    centred = values - values.mean(dim, keepdim=True)
    norm = torch.linalg.vector_norm(centred, dim=dim, keepdim=True)
    size = torch.linalg.vector_norm(values.detach(), dim=dim, keepdim=True)
    varied = norm.detach() > RELATIVE_SPREAD * size
    return centred / torch.where(varied, norm, torch.ones_like(norm)), varied.squeeze(dim)
