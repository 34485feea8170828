"""Region affinity distillation (RAD): how alike the regions of any two classes look to a layer.

Qin et al., Efficient Medical Image Segmentation Based on Knowledge Distillation, TMI 2021, eq. 6-8.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_kdseg.distillation.losses.common import EPSILON, labels_on_grid
from napari_kdseg.distillation.losses.importance_map import Features, feature_pairs
from napari_kdseg.errors import ConfigurationError


def region_affinity(
    student: Features,
    teacher: Features,
    target: Tensor | None = None,
    *,
    reduce: Literal["vector", "mean"] = "vector",
    p: int = 2,
    masks: Literal["nearest", "area"] = "nearest",
    ignore_index: int = 255,
) -> Tensor:
    r"""Difference of the region contrasts of student and teacher, summed over layer pairs.

    For each image, with :math:`m_i` the mask of class :math:`i` on the feature's grid,

    .. math::
        R_i = \frac{\sum_x f_x m_i(x)}{\sum_x m_i(x)}, \qquad
        V_{ij} = \frac{R_i^T R_j}{\|R_i\|_2 \|R_j\|_2}, \qquad
        L_{RA} = \sum_{pairs} \operatorname{mean}_{n, i<j} |V^s_{ij} - V^t_{ij}|^p

    Parameters
    ----------
    student, teacher
        ``[N, c, h, w]`` features, or tuples of as many. Sizes and channels may differ: the mask is resized for
        each. No gradient flows into the teacher's.
    target
        ``[N, H, W]`` labels.
    reduce
        ``"vector"`` compares each pair of classes; ``"mean"`` first averages :math:`V` over the pairs of an image
        (eq. 7). The same for two classes.
    p
        1 or 2, the norm's type.
    masks
        How labels are brought to the feature's grid: ``"nearest"`` (released code), or ``"area"``, soft masks by
        averaging, which keep a region smaller than a feature's pixel.
    ignore_index
        Label of pixels that belong to no region.

    Returns
    -------
    Tensor
        Scalar float32, at least 0, and 0 where both agree; 0 with a graph if no image shows two classes.

    Raises
    ------
    ConfigurationError
        If there are no labels, an option is unknown, or batch sizes or the numbers of layers differ.

    Notes
    -----
    - Only valid pairs count: both classes must have a pixel on the student's and on the teacher's grid, in that
      image. The released code knows two classes only and divides 0 by 0 where a slice is all foreground.
    - Eq. 8 prints a norm. For ``p = 2`` we take the squared difference, as the code does; averaged over the
      valid pairs of all images, not summed, so that the number of classes does not change the scale.
    - The code's smoothing of one denominator has no effect on a cosine; there is none here.
    """
    if target is None:
        raise ConfigurationError(
            "Region affinity needs labels. Give images with ground truth, or another loss."
        )
    if p not in (1, 2) or reduce not in ("vector", "mean") or masks not in ("nearest", "area"):
        raise ConfigurationError(
            f"Region affinity needs the norm 1 or 2, reduces by 'vector' or 'mean' and resizes masks by 'nearest' or "
            f"'area', not {p}, '{reduce}' and '{masks}'."
        )
    classes = target[target != ignore_index].unique()
    pairs = feature_pairs(student, teacher)
    if len(classes) < 2:
        return torch.stack([0.0 * of_student.sum() for of_student, _ in pairs]).sum()
    distances = []
    for of_student, of_teacher in pairs:
        with torch.autocast(of_student.device.type, enabled=False):
            contrast_student, valid_student = _region_contrast(of_student, target, classes, masks)
            contrast_teacher, valid_teacher = _region_contrast(of_teacher, target, classes, masks)
        valid = valid_student & valid_teacher
        distances.append(_distance(contrast_student, contrast_teacher, valid, reduce, p))
    return torch.stack(distances).sum()


def _region_contrast(feature: Tensor, target: Tensor, classes: Tensor, masks: str) -> tuple[Tensor, Tensor]:
    """Return the cosines ``V [N, pairs]`` of the regions' mean features, and which pairs are there."""
    mask = _masks_on_grid(target, classes, feature.shape[-2:], masks).to(feature.dtype).flatten(2)
    area = mask.sum(dim=2)
    region = mask @ feature.flatten(2).transpose(1, 2) / area.clamp(min=EPSILON).unsqueeze(2)
    region = F.normalize(region, dim=2, eps=EPSILON)
    i, j = torch.triu_indices(len(classes), len(classes), offset=1, device=feature.device)
    return (region[:, i] * region[:, j]).sum(dim=2), (area[:, i] > 0) & (area[:, j] > 0)


def _masks_on_grid(target: Tensor, classes: Tensor, size: torch.Size, how: str) -> Tensor:
    """One mask a class on the feature's grid: ``[N, classes, h, w]`` in [0, 1]."""
    if how == "nearest":
        target = labels_on_grid(target, size)
    one_hot = (target.unsqueeze(1) == classes.view(1, -1, 1, 1)).float()
    return F.adaptive_avg_pool2d(one_hot, (size[0], size[1])) if how == "area" else one_hot


def _distance(student: Tensor, teacher: Tensor, valid: Tensor, reduce: str, p: int) -> Tensor:
    """Mean of ``|V_s - V_t|^p`` over the valid pairs, or over the images' means of them."""
    difference = torch.where(valid, student - teacher, 0.0)
    if reduce == "mean":
        difference = difference.sum(dim=1) / valid.sum(dim=1).clamp(min=1)
        valid = valid.any(dim=1)
    distance = difference.abs() if p == 1 else difference.square()
    return distance.sum() / valid.sum().clamp(min=1)
