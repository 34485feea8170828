"""Flow of the solution procedure: how two layers of a network go together.

Yim et al.: A Gift from Knowledge Distillation. CVPR 2017, eq. 1 and 2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_kdseg.distillation.losses.common import at_least_float32, labelled_on_grid
from napari_kdseg.errors import ConfigurationError

TwoLayers = tuple[Tensor, Tensor]


def fsp(
    student: TwoLayers, teacher: TwoLayers, target: Tensor | None = None, *, ignore_index: int = 255
) -> Tensor:
    r"""Mean squared difference of the FSP matrices of two layers.

    .. math::
        G = \frac{1}{hw} F_1 F_2^\top \in \mathbb{R}^{c_1 \times c_2},
        \qquad L = \operatorname{mean}_{n, c_1, c_2} (G_S - G_T)^2

    Parameters
    ----------
    student
        Two features ``[N, c1, h1, w1]`` and ``[N, c2, h2, w2]`` of the student, an early layer and a late one.
    teacher
        Two features of the teacher with the same channels ``c1`` and ``c2``; any size. No gradient flows into
        them.
    target
        ``[N, H, W]`` labels, read only to leave out ignored pixels. ``None`` counts every pixel.
    ignore_index
        Label of pixels that count for nothing.

    Returns
    -------
    Tensor
        Scalar float32, 0 where the matrices agree; 0 with a graph if no pixel counts.

    Raises
    ------
    ConfigurationError
        If there are not two layers a side, or their channels differ between student and teacher.

    Notes
    -----
    - *Channels.* The matrices can be compared only where both layers have the teacher's channels; the paper
      chooses such networks, CoCo DistillNet's authors align the teacher with a paraphraser. Our method aligns
      the student's layers with 1x1 convolutions (:func:`napari_kdseg.distillation.connectors.match_channels`).
    - *Sizes.* The paper max-pools where the two layers of a network differ in size; we average (adaptive
      average pooling to the smaller of both), as RepDistiller does, since the matrix is an average as well.
      Student and teacher need not agree in size.
    - *Weights of layer pairs.* The paper's :math:`\lambda_i` are equal; with one pair there is none.
    """
    for side, layers in (("student", student), ("teacher", teacher)):
        if not isinstance(layers, tuple | list) or len(layers) != 2:
            raise ConfigurationError(
                f"FSP looks at how two layers go together: name exactly two {side} layers, an early and a late one."
            )
    with torch.autocast(student[0].device.type, enabled=False):
        of_student, has_pixels = _flow(
            at_least_float32(student[0]), at_least_float32(student[1]), target, ignore_index
        )
        first, second = (at_least_float32(layer.detach()) for layer in teacher)
        of_teacher, teacher_has = _flow(first, second, target, ignore_index)
    if of_student.shape != of_teacher.shape:
        raise ConfigurationError(
            f"The student's two layers have {tuple(of_student.shape[1:])} channels but the teacher's "
            f"{tuple(of_teacher.shape[1:])}. Bring them together with a connector, or choose other layers."
        )
    has_pixels = has_pixels & teacher_has
    of_image = torch.where(has_pixels, (of_student - of_teacher).square().mean((1, 2)), 0.0)
    return of_image.sum() / has_pixels.sum().clamp(min=1)


def _flow(first: Tensor, second: Tensor, target: Tensor | None, ignore_index: int) -> tuple[Tensor, Tensor]:
    """FSP matrices ``[N, c1, c2]`` over the labelled pixels, and which images have any ``[N]``."""
    size = (min(first.shape[2], second.shape[2]), min(first.shape[3], second.shape[3]))
    first, second = (F.adaptive_avg_pool2d(layer, size) for layer in (first, second))
    labelled = labelled_on_grid(target, first, ignore_index)
    first, second = (layer.masked_fill(~labelled.unsqueeze(1), 0.0) for layer in (first, second))
    pixels = labelled.sum((1, 2))
    matrix = first.flatten(2) @ second.flatten(2).transpose(1, 2) / pixels.clamp(min=1)[:, None, None]
    return matrix, pixels > 0
