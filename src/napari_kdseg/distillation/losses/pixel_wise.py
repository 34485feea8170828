"""SKD's pixel-wise loss: the cross entropy of the student with the teacher's map (Liu et al., CVPR 2019).

Its pair-wise and holistic companions have files of their own.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from napari_kdseg.distillation.losses.common import averaged_squares, labelled_mean, same_shape


def pixel_wise(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor | None = None,
    *,
    stride: int = 1,
    reduction: Literal["pixels", "image"] = "pixels",
    ignore_index: int = 255,
) -> Tensor:
    r"""Cross entropy between the teacher's and the student's class probabilities, averaged over pixels.

    .. math::
        L = \operatorname{mean}_{px} \Bigl(-\sum_c p_{T,c} \log p_{S,c}\Bigr), \qquad p = \mathrm{softmax}(z)

    Parameters
    ----------
    student_logits
        ``[N, C, H, W]`` logits :math:`z_S`.
    teacher_logits
        ``[N, C, h, w]`` logits :math:`z_T`; resized (bilinear) to the student's size where it differs. No
        gradient flows into them.
    target
        ``[N, H, W]`` labels; only used to leave out ignored pixels. ``None`` counts every pixel.
    stride
        Side in pixels of the squares over which both logits are averaged before.
    reduction
        ``"pixels"``: the mean over all labelled pixels of the batch. ``"image"``: that, times the images of the batch,
        as the authors' code sums.
    ignore_index
        Label of pixels that count for nothing.

    Returns
    -------
    Tensor
        Scalar float32; its minimum, reached where both agree, is the teacher's mean entropy. 0 with a graph
        if no pixel counts.

    Raises
    ------
    ConfigurationError
        If the two differ in batch size or number of classes.

    Notes
    -----
    Liu et al., Structured Knowledge Distillation for Semantic Segmentation, has a KL divergence; the
    authors' code takes the cross entropy, and so do we. The two differ by the teacher's entropy, a constant, so
    that the gradient is that of :func:`~napari_kdseg.distillation.losses.knowledge_distillation.kd` at
    temperature 1. The authors' code divides its sum by the pixels of one image and not by the batch size
    (``reduction="image"``), on logits at an eighth of the image (``stride=8`` comes nearest where a network answers at
    full size); we take the mean over all labelled pixels, so that the weight means the same at any batch size.
    """
    student, teacher = same_shape(student_logits, teacher_logits, "output")
    student, teacher = averaged_squares(student, stride), averaged_squares(teacher, stride)
    cross_entropy = -(teacher.softmax(dim=1) * F.log_softmax(student, dim=1)).sum(dim=1)
    mean = labelled_mean(cross_entropy, target, ignore_index)
    return mean * len(student) if reduction == "image" else mean
