"""Importance map distillation (IMD): where in the image a layer is active, compared between student and teacher.

Qin et al., Efficient Medical Image Segmentation Based on Knowledge Distillation, TMI 2021, eq. 2-5.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_kdseg.distillation.losses.common import at_least_float32, labels_on_grid
from napari_kdseg.distillation.losses.pairs import as_tuple, layer_pairs
from napari_kdseg.errors import ConfigurationError

Features: TypeAlias = Tensor | tuple[Tensor, ...]
"""One feature ``[N, c, h, w]``, or a tuple of them where several layers are compared."""


def importance_map(
    student: Features,
    teacher: Features,
    target: Tensor | None = None,
    *,
    power: int = 4,
    norm: Literal["l2sq", "l1"] = "l2sq",
    resize: Literal["bilinear", "pool"] = "bilinear",
    ignore_index: int = 255,
) -> Tensor:
    r"""Distance of the normalised importance maps, summed over layer pairs, averaged over images.

    With :math:`M = \operatorname{mean}_c |f_c|^q \in R^{h \times w}`, the student's feature first brought to the
    teacher's size, and :math:`D = M_s / \|M_s\|_2 - M_t / \|M_t\|_2`,

    .. math::
        L_{IM} = \sum_{pairs} \|D\|_2^2 \quad \text{(l2sq)}, \qquad
        L_{IM} = \sum_{pairs} \|D\|_1 / \sqrt{h w} \quad \text{(l1)}

    Parameters
    ----------
    student, teacher
        ``[N, c, h, w]`` features, or tuples of as many. Sizes and channels may differ. No gradient flows into
        the teacher's.
    target
        ``[N, H, W]`` labels, read only to leave out ignored pixels, whose importance is set to 0 before the map is
        normalised. ``None`` counts every pixel.
    power
        The exponent :math:`q`: 2 (paper) or 4 (released code).
    norm
        ``"l2sq"``, the released code's, lies in [0, 2] for any size of map; or ``"l1"``, the paper's.
    resize
        How the student's feature is brought to the teacher's size: ``"bilinear"`` (released code), or
        ``"pool"``, the paper's "unpooling when smaller, pooling when bigger".
    ignore_index
        Label of pixels that count for nothing.

    Returns
    -------
    Tensor
        Scalar float32, at least 0, and 0 where both maps are proportional; 0 with a graph if no pixel counts.

    Raises
    ------
    ConfigurationError
        If an option is unknown, or batch sizes or the numbers of layers differ.

    Notes
    -----
    - Scale: for 192 x 192 maps of unlike features the bare L1 norm is about 60 (power 2) to 110 (power 4), the
      released code's form about 0.5. The printed weight 0.9 belongs to the latter, so the l1 form is divided by
      :math:`\sqrt{h w}`, which bounds it by 2 on any map. That divisor is ours.
    - The paper sums over channels, the code averages: the same, as the map is normalised afterwards.
    - The text says "absolute value", eq. 3 squares: with an even exponent there is no difference.
    - Which pooling and unpooling the paper means is not said; we average when bigger and repeat when smaller.
    - The paper has no batch index: the mean is over images, as in the code.
    """
    if power not in (2, 4) or norm not in ("l2sq", "l1") or resize not in ("bilinear", "pool"):
        raise ConfigurationError(
            f"An importance map needs the power 2 or 4, the norm 'l2sq' or 'l1' and the resize 'bilinear' or 'pool', "
            f"not {power}, '{norm}' and '{resize}'."
        )
    distances = []
    for of_student, of_teacher in feature_pairs(student, teacher):
        size = of_teacher.shape[-2:]
        if of_student.shape[-2:] != size:
            of_student = _resize(of_student, size, resize)
        if target is not None:
            ignored = (labels_on_grid(target, size) == ignore_index).unsqueeze(1)
            of_student, of_teacher = (f.masked_fill(ignored, 0.0) for f in (of_student, of_teacher))
        difference = _normalised_map(of_student, power) - _normalised_map(of_teacher, power)
        if norm == "l2sq":
            distances.append(difference.square().sum(dim=1).mean())
        else:
            distances.append(difference.abs().sum(dim=1).mean() / math.sqrt(size.numel()))
    return torch.stack(distances).sum()


def feature_pairs(student: Features, teacher: Features) -> list[tuple[Tensor, Tensor]]:
    """Return the layer pairs, in float32 at least, the teacher's detached.

    Raises
    ------
    ConfigurationError
        If the two have different numbers of layers, or the features of a pair different batch sizes.
    """
    pairs = layer_pairs(as_tuple(student), as_tuple(teacher))
    for one, other in pairs:
        if one.dim() != 4 or other.dim() != 4 or len(one) != len(other):
            raise ConfigurationError(
                f"The student's feature has shape {tuple(one.shape)} and the teacher's {tuple(other.shape)}; both must "
                "be [N, c, h, w] with the same batch size N. Choose layers that give feature maps."
            )
    return [(at_least_float32(one), at_least_float32(other.detach())) for one, other in pairs]


def _resize(feature: Tensor, size: torch.Size, how: str) -> Tensor:
    if how == "bilinear":
        return F.interpolate(feature, size=size, mode="bilinear", align_corners=False)
    return F.adaptive_avg_pool2d(feature, (size[0], size[1]))  # to a larger size it repeats pixels


def _normalised_map(feature: Tensor, power: int) -> Tensor:
    """``M / |M|_2`` as ``[N, h*w]``; 0 where the feature is 0 everywhere."""
    largest = feature.detach().abs().amax(dim=(1, 2, 3), keepdim=True)
    # the result does not depend on the feature's scale; this keeps its fourth power within float32
    feature = feature / largest.clamp(min=torch.finfo(feature.dtype).tiny)
    return F.normalize(feature.pow(power).mean(dim=1).flatten(1), dim=1)
