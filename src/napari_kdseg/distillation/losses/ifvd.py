"""Intra-class feature variation: how far each pixel lies from the mean feature of its class.

Wang et al.: Intra-class Feature Variation Distillation for Semantic Segmentation. ECCV 2020.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_kdseg.distillation.losses.common import EPSILON, at_least_float32, labels_on_grid
from napari_kdseg.errors import ConfigurationError


def ifvd(
    student: Tensor, teacher: Tensor, target: Tensor | None = None, *, ignore_index: int = 255
) -> Tensor:
    r"""Mean squared difference of the similarities between pixels and their class's prototype.

    For each image and class, the prototype is the mean feature of the class's pixels :math:`S_c`:

    .. math::
        \mu_c = \frac{1}{|S_c|} \sum_{p \in S_c} f(p), \qquad s(p) = \cos\bigl(f(p), \mu_{Y(p)}\bigr),
        \qquad L = \operatorname{mean}_p \bigl(s_S(p) - s_T(p)\bigr)^2

    Parameters
    ----------
    student, teacher
        Features ``[N, c, h, w]``; channels and sizes may differ. No gradient flows into the teacher.
    target
        ``[N, H, W]`` labels :math:`Y`, brought to the grid of each feature by nearest neighbour. Must be given.
    ignore_index
        Label of pixels that count for nothing: they enter no prototype and are not compared.

    Returns
    -------
    Tensor
        Scalar float32 between 0 and 4, 0 where the similarities agree; 0 with a graph if no pixel counts.

    Raises
    ------
    ConfigurationError
        If there is no ground truth.

    Notes
    -----
    - *Absent classes* have no prototype and contribute nothing.
    - *Ignored pixels.* The authors' code compares an ignored pixel with itself (similarity 1 for both networks),
      which only dilutes the mean; we leave them out.
    - *Sizes.* The paper's features have one size. Where they differ, prototypes and similarities are made on each
      network's own grid, and the teacher's similarity map is resized (bilinear, weighted by the labelled
      pixels) to the student's: similarities are comparable between networks, features are not.
    - *Gradient.* It flows through the prototype too, as the equation reads.
    """
    if target is None:
        raise ConfigurationError(
            "IFVD compares pixels with the mean feature of their class, so it needs the ground truth of every image. "
            "Give the labels, or choose a method that does not need them."
        )
    with torch.autocast(student.device.type, enabled=False):
        of_student, compared = _similarity_to_prototype(at_least_float32(student), target, ignore_index)
        of_teacher, labelled = _similarity_to_prototype(
            at_least_float32(teacher.detach()), target, ignore_index
        )
    size = student.shape[-2:]
    if of_teacher.shape[-2:] != size:
        share = _resize(labelled.to(of_teacher.dtype), size)
        of_teacher = _resize(of_teacher * labelled, size) / share.clamp(min=EPSILON)
        compared = compared & (share > 0)
    squares = torch.where(compared, (of_student - of_teacher).square(), 0.0)
    return squares.sum() / compared.sum().clamp(min=1)


def _similarity_to_prototype(feature: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Cosine similarity of each pixel to the mean of its class in its image, and which pixels are labelled."""
    labels = labels_on_grid(target, feature.shape[-2:])
    labelled = labels != ignore_index
    labels = torch.where(labelled, labels, 0)
    is_class = F.one_hot(labels).movedim(-1, 1) * labelled.unsqueeze(1)  # [N, C, h, w]
    pixels = feature.masked_fill(~labelled.unsqueeze(1), 0.0).flatten(2)  # [N, c, hw]
    is_class = is_class.flatten(2).to(pixels.dtype)
    prototypes = (
        pixels @ is_class.transpose(1, 2) / is_class.sum(dim=2).clamp(min=1).unsqueeze(1)
    )  # [N, c, C]
    similarity = F.cosine_similarity(pixels, prototypes @ is_class, dim=1, eps=EPSILON)
    return similarity.view_as(labelled), labelled


def _resize(values: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(values.unsqueeze(1), size=size, mode="bilinear", align_corners=False).squeeze(1)
