"""Reconstruction of a feature by an auto-encoder: trains the paraphraser of CoCo DistillNet (BIBM 2021, eq. 6)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_kdseg.distillation.losses.common import at_least_float32
from napari_kdseg.errors import ConfigurationError


def reconstruction(
    student: Tensor | tuple[Tensor, ...],
    teacher: Tensor | tuple[Tensor, ...],
    target: Tensor | None = None,  # noqa: ARG001
    *,
    ignore_index: int = 255,  # noqa: ARG001
) -> Tensor:
    r"""L_rec: mean squared error of reconstructed features, :math:`\sum_l \operatorname{mean} (F_l - P_l(F_l))^2`.

    Parameters
    ----------
    student
        Reconstructions :math:`P(F)`, ``[N, c, h, w]`` each.
    teacher
        The teacher's features :math:`F` of the same shapes. No gradient flows into them.
    target, ignore_index
        Not used: the loss needs no labels.

    Returns
    -------
    Tensor
        Scalar float32, 0 where every feature is reconstructed.

    Raises
    ------
    ConfigurationError
        If the shapes differ.

    Notes
    -----
    The paper prints a squared norm. We divide it by the number of values, so that a learning rate serves features of
    any size (Factor Transfer's own code takes the mean absolute error). The sum over layers leaves each paraphraser
    the gradient it would have alone.
    """
    made = (student,) if isinstance(student, Tensor) else tuple(student)
    features = (teacher,) if isinstance(teacher, Tensor) else tuple(teacher)
    if [one.shape for one in made] != [one.shape for one in features]:
        raise ConfigurationError(
            f"The reconstructions have shapes {[tuple(one.shape) for one in made]} but the features "
            f"{[tuple(one.shape) for one in features]}. Build the paraphraser for the layers it is shown."
        )
    errors = [
        F.mse_loss(at_least_float32(one), at_least_float32(f.detach()))
        for one, f in zip(made, features, strict=True)
    ]
    return torch.stack(errors).sum()
