"""Hints: the student's feature regresses the teacher's.

Romero et al.: FitNets: Hints for Thin Deep Nets. ICLR 2015 (arXiv 1412.6550), eq. 3. The same loss on the map
before the classifier is MIMIC (Li et al., CVPR 2017) as segmentation papers use it.
"""

from __future__ import annotations

from torch import Tensor

from napari_kdseg.distillation.losses.common import labelled_mean, same_shape


def fitnet(
    student: Tensor, teacher: Tensor, target: Tensor | None = None, *, ignore_index: int = 255
) -> Tensor:
    r"""Mean squared difference of two features: :math:`L = \operatorname{mean} (A f_S - f_T)^2`.

    Parameters
    ----------
    student
        ``[N, c, h, w]``: the student's feature :math:`A f_S`, already brought to the teacher's channels by the
        regressor :math:`A` (:func:`napari_kdseg.distillation.connectors.conv1x1`).
    teacher
        ``[N, c, h', w']``: the teacher's feature :math:`f_T`, resized (bilinear) to the student's size where it
        differs. No gradient flows into it.
    target
        ``[N, H, W]`` labels, read only to leave out ignored pixels. ``None`` counts every pixel.
    ignore_index
        Label of pixels that count for nothing.

    Returns
    -------
    Tensor
        Scalar float32, 0 where both agree; 0 with a graph if no pixel counts.

    Raises
    ------
    ConfigurationError
        If batch size or channels differ.

    Notes
    -----
    The papers print half a squared norm, a sum that grows with the feature. We take the mean over pixels and
    channels, as CIRKD and RepDistiller do, without the half.
    """
    student, teacher = same_shape(student, teacher, "feature")
    return labelled_mean((student - teacher).square().mean(dim=1), target, ignore_index)
