"""Pair-wise distillation: similarities between the nodes of a feature map.

Liu et al.: Structured Knowledge Distillation for Semantic Segmentation. CVPR 2019 (arXiv 1903.04197),
the pair-wise equation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_kdseg.distillation.losses.common import EPSILON, labelled_on_grid
from napari_kdseg.errors import ConfigurationError


def pair_wise(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    nodes: int = 8,
    ignore_index: int = 255,
) -> Tensor:
    r"""Squared difference of the cosine similarities between all pairs of nodes.

    A node is a cell of a ``nodes x nodes`` grid laid over the feature map, described by the maximum of each
    channel inside the cell. With :math:`U` the nodes' vectors divided by their length, and
    :math:`A = U U^\top`,

    .. math::
        L = \frac{1}{N} \sum_n \frac{1}{R^2} \sum_{i,j} \bigl(A^S_{ij} - A^T_{ij}\bigr)^2,
        \qquad R = \mathtt{nodes}^2

    Parameters
    ----------
    student, teacher
        Features ``[N, c, h, w]``; channels and sizes may differ, because only similarities are compared. No
        gradient flows into the teacher.
    target
        ``[N, H, W]`` labels, read only to leave out ignored pixels: they are not pooled, and a node without a
        labelled pixel is left out. ``None`` counts every pixel.
    nodes
        Nodes along each side, at least 1. A map with fewer pixels along a side has as many nodes as pixels.
    ignore_index
        Label of pixels that count for nothing.

    Returns
    -------
    Tensor
        Scalar float32 between 0 and 4, 0 where the similarities agree; 0 with a graph if no pixel counts.

    Raises
    ------
    ConfigurationError
        If ``nodes`` is below 1.

    Notes
    -----
    - *Nodes.* The paper speaks of all pixels, its code pools to 2 or 3 nodes a side (windows of half the map),
      CIRKD uses 2 x 2 windows, whose matrix takes 256 MiB an image at 128 x 256 features. We expose the number
      of nodes; 8 a side gives a 64 x 64 matrix whatever the size of the map.
    - *Windows.* Cells are those of adaptive pooling, so that teacher and student have the same nodes where
      their sizes differ.
    - *Norm.* The original code takes the vectors' length as a constant (detached). Here it is differentiable,
      as the equation reads: the gradient has no part along the vector itself, which the loss cannot see.
    """
    if nodes < 1:
        raise ConfigurationError(f"There must be at least one node along each side, not {nodes}.")
    height = min(nodes, student.shape[2], teacher.shape[2])
    width = min(nodes, student.shape[3], teacher.shape[3])
    with torch.autocast(student.device.type, enabled=False):
        of_student, student_has = _similarities(student.float(), target, (height, width), ignore_index)
        of_teacher, teacher_has = _similarities(
            teacher.detach().float(), target, (height, width), ignore_index
        )
        both = student_has & teacher_has
        pairs = both.unsqueeze(1) & both.unsqueeze(2)
        squares = torch.where(pairs, (of_student - of_teacher).square(), 0.0).sum((1, 2))
        of_image = squares / pairs.sum((1, 2)).clamp(min=1)
        return of_image.sum() / both.any(dim=1).sum().clamp(min=1)


def _similarities(
    feature: Tensor, target: Tensor | None, grid: tuple[int, int], ignore_index: int
) -> tuple[Tensor, Tensor]:
    """Cosine similarities of the nodes ``[N, R, R]``, and which nodes hold a labelled pixel ``[N, R]``."""
    labelled = labelled_on_grid(target, feature, ignore_index).unsqueeze(1)
    has_pixels = F.adaptive_max_pool2d(labelled.float(), grid) > 0
    pooled = F.adaptive_max_pool2d(feature.masked_fill(~labelled, -torch.inf), grid)
    unit = F.normalize(torch.where(has_pixels, pooled, 0.0).flatten(2), dim=1, eps=EPSILON)
    return unit.transpose(1, 2) @ unit, has_pixels.flatten(1)
