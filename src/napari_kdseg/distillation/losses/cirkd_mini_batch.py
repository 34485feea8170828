"""CIRKD, part one: how alike the pixels of any two images of the batch are (mini-batch pixel-to-pixel).

Yang et al., Cross-Image Relational Knowledge Distillation for Semantic Segmentation, CVPR 2022.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_kdseg.distillation.losses.common import EPSILON, at_least_float32, labels_on_grid
from napari_kdseg.errors import ConfigurationError


def cirkd_mini_batch(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    temperature: float = 0.1,
    nodes: int = 1024,
    ignore_index: int = 255,
) -> Tensor:
    r"""Divergence of the pixel relations between all pairs of images, an image with itself included.

    With :math:`U_n \in R^{m \times c}` the normalised embeddings of image :math:`n`,

    .. math::
        P_{ij} = \operatorname{softmax}_{row}(U_i U_j^T / \tau), \qquad
        L = \frac{1}{N^2} \sum_{i,j} \operatorname{mean}_{row} \mathrm{KL}(P^T_{ij} \| P^S_{ij})

    Parameters
    ----------
    student, teacher
        ``[N, c, h, w]`` features; sizes and channels may differ. No gradient flows into the teacher's.
    target
        ``[N, H, W]`` labels, read only to leave out ignored pixels. ``None`` counts every pixel.
    temperature
        :math:`\tau > 0`.
    nodes
        Most embeddings an image may have; larger maps are averaged over windows. Memory grows as
        ``(N * nodes)^2``.
    ignore_index
        Label of pixels that count for nothing; an embedding counts if its window has another pixel.

    Returns
    -------
    Tensor
        Scalar float32, at least 0, and 0 where both agree; 0 with a graph if no pixel counts.

    Raises
    ------
    ConfigurationError
        If batch sizes differ, or a constant is not positive.

    Notes
    -----
    - *Size.* The paper compares every pixel at 1/8 resolution, its code averages windows of 4 x 4 where both sides have
      256 pixels or more. We take the smallest square window that leaves no more than ``nodes``; where it does not
      divide a side, windows overlap (adaptive pooling), where the code leaves a narrow one.
    - *Grids.* Where student and teacher differ in size both are averaged to one grid, that of the smaller map;
      the paper's have one size.
    - *One image a batch* still has the relations within it, but none across images.
    - *Processes.* The images are those of this process; the paper's code does not gather others' either.
    """
    if temperature <= 0 or nodes < 1:
        raise ConfigurationError(
            f"CIRKD needs a temperature above zero and at least one node, not {temperature} and {nodes}."
        )
    if len(student) != len(teacher):
        raise ConfigurationError(
            f"The student's feature has shape {tuple(student.shape)} and the teacher's {tuple(teacher.shape)}; "
            "the batch sizes must agree. Give both the same images."
        )
    grid = _grid(student.shape, teacher.shape, nodes)
    with torch.autocast(student.device.type, enabled=False):
        of_student, counts = _embeddings(at_least_float32(student), target, grid, ignore_index)
        of_teacher, counts_too = _embeddings(at_least_float32(teacher.detach()), target, grid, ignore_index)
        seen = counts & counts_too
        images = [(s[n], t[n]) for s, t, n in zip(of_student, of_teacher, seen, strict=True) if n.any()]
        total = 0.0 * of_student.sum()
        for anchors_s, anchors_t in images:
            for others_s, others_t in images:
                relation_s = F.log_softmax(anchors_s @ others_s.T / temperature, dim=1)
                relation_t = F.log_softmax(anchors_t @ others_t.T / temperature, dim=1)
                total = total + F.kl_div(relation_s, relation_t, reduction="batchmean", log_target=True)
    return total / max(len(images) ** 2, 1)


def _grid(student: torch.Size, teacher: torch.Size, nodes: int) -> tuple[int, int]:
    """The smaller map's grid, divided by the smallest whole number that leaves at most ``nodes``."""
    height, width = min(student[2], teacher[2]), min(student[3], teacher[3])
    window = 1
    while math.ceil(height / window) * math.ceil(width / window) > nodes:
        window += 1
    return math.ceil(height / window), math.ceil(width / window)


def _embeddings(
    feature: Tensor, target: Tensor | None, grid: tuple[int, int], ignore_index: int
) -> tuple[Tensor, Tensor]:
    """Return unit embeddings ``[N, m, c]`` on the grid, and which have a pixel that counts ``[N, m]``."""
    share = torch.ones_like(feature[:, :1])
    if target is not None:
        share = (labels_on_grid(target, feature.shape[-2:]) != ignore_index).unsqueeze(1).float()
        feature = feature.masked_fill(share == 0, 0.0)
    embeddings = F.adaptive_avg_pool2d(feature, grid).flatten(2).transpose(1, 2)
    counts = F.adaptive_avg_pool2d(share, grid).flatten(1) > 0
    return F.normalize(embeddings, dim=2, eps=EPSILON), counts
