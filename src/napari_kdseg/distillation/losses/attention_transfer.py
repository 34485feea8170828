"""Attention transfer: where a layer is active, whatever its channels are.

Zagoruyko and Komodakis: Paying More Attention to Attention. ICLR 2017 (arXiv 1612.03928), eq. 2.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_kdseg.distillation.losses.common import EPSILON, at_least_float32, labels_on_grid, same_size
from napari_kdseg.errors import ConfigurationError


def attention_transfer(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    exponent: float = 2.0,
    reduction: Literal["sum", "mean"] = "sum",
    ignore_index: int = 255,
) -> Tensor:
    r"""Squared distance of two attention maps of length one.

    .. math::
        q(f) = \frac{\operatorname{vec}(\operatorname{mean}_c |f_c|^p)}
            {\lVert \operatorname{vec}(\operatorname{mean}_c |f_c|^p) \rVert_2},
        \qquad L = \operatorname{mean}_n \sum_{hw} (q_S - q_T)^2

    Parameters
    ----------
    student, teacher
        Features ``[N, c, h, w]``; channels may differ, and the teacher's map is resized (bilinear) to the
        student's size where sizes do. No gradient flows into the teacher.
    target
        ``[N, H, W]`` labels, read only to leave out ignored pixels, whose attention is set to 0 before the map
        is normalised. ``None`` counts every pixel.
    exponent
        :math:`p \ge 1` of the attention map.
    reduction
        Over the pixels: ``"sum"`` does not depend on the resolution and lies between 0 and 2; ``"mean"`` divides
        by ``h * w``, as the authors' code does with weight 1000 and CIRKD's with 10000.
    ignore_index
        Label of pixels that count for nothing.

    Returns
    -------
    Tensor
        Scalar float32, at least 0, and 0 where the maps are proportional; 0 with a graph if no pixel counts.

    Raises
    ------
    ConfigurationError
        If the exponent is below 1.

    Notes
    -----
    - *Reduction.* Equation 2 prints a p-norm, the authors' code a mean of squares. A mean over pixels of vectors
      of length one falls with ``1 / (h * w)``, hence weights of 10000; we sum.
    - *Channels.* The paper sums over channels, its code takes the mean; after normalisation they are equal.
    - *Sizes.* The one-channel map is resized, not the feature.
    """
    if exponent < 1:
        raise ConfigurationError(f"The exponent of an attention map must be at least 1, not {exponent}.")
    attention_s, attention_t = same_size(
        at_least_float32(student).abs().pow(exponent).mean(dim=1, keepdim=True),
        at_least_float32(teacher.detach()).abs().pow(exponent).mean(dim=1, keepdim=True),
    )
    if target is not None:
        ignored = (labels_on_grid(target, student.shape[-2:]) == ignore_index).unsqueeze(1)
        attention_s, attention_t = (a.masked_fill(ignored, 0.0) for a in (attention_s, attention_t))
    q_s, q_t = (F.normalize(a.flatten(1), dim=1, eps=EPSILON) for a in (attention_s, attention_t))
    squares = (q_s - q_t).square()
    return squares.sum(dim=1).mean() if reduction == "sum" else torch.mean(squares)
