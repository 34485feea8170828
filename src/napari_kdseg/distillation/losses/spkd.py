"""Similarity preserving: which images of a batch resemble each other.

Tung and Mori: Similarity-Preserving Knowledge Distillation. ICCV 2019 (arXiv 1907.09682).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_kdseg.distillation.losses.common import EPSILON, at_least_float32, labels_on_grid


def spkd(
    student: Tensor, teacher: Tensor, target: Tensor | None = None, *, ignore_index: int = 255
) -> Tensor:
    r"""Squared difference of the row-normalised Gram matrices of a batch.

    .. math::
        Q = \operatorname{reshape}(f) \in \mathbb{R}^{N \times chw}, \qquad
        G_{[i]} = \frac{(Q Q^\top)_{[i]}}{\lVert (Q Q^\top)_{[i]} \rVert_2}, \qquad
        L = \frac{1}{N^2} \lVert G_S - G_T \rVert_F^2

    Parameters
    ----------
    student, teacher
        Features ``[N, c, h, w]``; channels and sizes may differ, the matrices are ``N x N``. No gradient flows
        into the teacher.
    target
        ``[N, H, W]`` labels, read only to leave out ignored pixels, whose features are set to 0. ``None`` counts
        every pixel.
    ignore_index
        Label of pixels that count for nothing.

    Returns
    -------
    Tensor
        Scalar float32, at least 0, and 0 where the similarities agree; 0 with a graph if no pixel counts.

    Notes
    -----
    - With one image a batch, ``G`` is the number 1 for both, so the loss is 0 and teaches nothing.
    - The Gram matrix is of one process's batch: with several GPUs, images on different ones are not compared.
    - ``1 / N^2`` with rows of length one makes the value fall with the batch size, at most ``4 / N``: a published
      weight belongs to a batch size.
    """
    with torch.autocast(student.device.type, enabled=False):
        of_student = _batch_similarity(at_least_float32(student), target, ignore_index)
        of_teacher = _batch_similarity(at_least_float32(teacher.detach()), target, ignore_index)
    return (of_student - of_teacher).square().mean()


def _batch_similarity(feature: Tensor, target: Tensor | None, ignore_index: int) -> Tensor:
    """Gram matrix ``[N, N]`` of the images of a batch, each row of length one."""
    if target is not None:
        ignored = labels_on_grid(target, feature.shape[-2:]) == ignore_index
        feature = feature.masked_fill(ignored.unsqueeze(1), 0.0)
    images = feature.flatten(1)
    return F.normalize(images @ images.T, dim=1, eps=EPSILON)
