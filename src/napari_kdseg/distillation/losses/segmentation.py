"""The supervised segmentation loss: cross entropy, or focal loss, plus soft Dice.

PLC-KD (Wang et al., MICCAI 2024, sect. 2.4) trains every network with "the combination of cross entropy loss
and dice loss" but prints neither formula nor weights; the readings taken are named at
:func:`cross_entropy_dice`. EMKD's code (Qin et al., TMI 2021) has the focal loss of Lin et al. (ICCV 2017) instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_kdseg.distillation.losses.common import at_least_float32
from napari_kdseg.errors import ConfigurationError


def cross_entropy_dice(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = 255,
    cross_entropy_weight: float = 1.0,
    dice_weight: float = 1.0,
    smooth: float = 1.0,
    class_weights: Sequence[float] = (),
    focusing: float = 0.0,
) -> Tensor:
    r"""Weighted sum of cross entropy (or focal loss) and soft Dice loss, over the labelled pixels of the batch.

    With :math:`p = \mathrm{softmax}(z)` and the one-hot target :math:`y`, sums running over all labelled
    pixels of the whole batch,

    .. math::
        L = w_{CE} \frac{\sum_{px} -v_y (1 - p_y)^\gamma \log p_y}{\sum_{px} v_y}
            + w_{D} \Bigl(1 - \frac{1}{C-1} \sum_{c \ge 1} \frac{2 \sum p_c y_c + s}{\sum p_c + \sum y_c + s}\Bigr)

    Parameters
    ----------
    logits
        ``[N, C, H, W]``, ``C >= 2``, any float type; computed in float32 at least.
    target
        ``[N, H, W]`` integer classes; class 0 is background.
    ignore_index
        Label of pixels that count for nothing.
    cross_entropy_weight, dice_weight
        Weights of the two parts. The paper gives none; 1 : 1.
    smooth
        Laplace smoothing ``s > 0`` of the Dice ratio: a class absent from target and prediction scores 1, and one
        absent from the target alone pays for every false positive.
    class_weights
        :math:`v_c` of each class in the cross entropy; none: all alike.
    focusing
        :math:`\gamma \ge 0` of the focal loss, which counts pixels less the surer they are; 0 is cross entropy.

    Returns
    -------
    Tensor
        Scalar float32. A batch without a labelled pixel gives 0, still attached to the graph.

    Raises
    ------
    ConfigurationError
        If there are fewer than two classes, ``smooth`` is not positive or ``focusing`` negative.

    Notes
    -----
    - *Dice.* Three things PLC-KD leaves open and we decide: Dice is taken over foreground classes only, its sums run
      over the batch rather than over each image (stable where a tile has no lesion), and the denominator is
      linear in ``p`` (not squared as in V-Net and in TransUNet's repository).
    - *Focal loss.* With ``focusing=2``, weights of 0.5 and 0.5 and two classes this is the loss of EMKD's code, also in
      its gradient: the factor :math:`(1 - p_y)^\gamma`, which Lin et al. differentiate, is a constant there.
    - *More classes.* EMKD's code knows two. With more we take the true class's probability in the focal loss, as Lin
      et al. do, and the mean of the classes' Dice; its one ratio of all foreground channels would be the larger
      classes'.
    """
    classes = logits.shape[1]
    if classes < 2:
        raise ConfigurationError(
            f"The segmentation loss needs at least two classes, background and one other, but got {classes}. "
            "Use a network with one output channel for each class, background included."
        )
    if smooth <= 0:
        raise ConfigurationError(f"The Dice smoothing must be above zero, not {smooth}.")
    if focusing < 0:
        raise ConfigurationError(f"The focal loss's exponent must not be negative, but is {focusing}.")
    logits, target = at_least_float32(logits), target.long()
    labelled = target != ignore_index
    cross_entropy = _cross_entropy(logits, target, labelled, ignore_index, class_weights, focusing)
    dice = 1.0 - _soft_dice(logits.softmax(dim=1), target, labelled, smooth)[1:].mean()
    return cross_entropy_weight * cross_entropy + dice_weight * dice


def _cross_entropy(
    logits: Tensor,
    target: Tensor,
    labelled: Tensor,
    ignore_index: int,
    class_weights: Sequence[float],
    focusing: float,
) -> Tensor:
    """Mean over the labelled pixels, each counting as its class does; 0 with a graph where none counts."""
    if not class_weights:
        weight, counted = None, labelled.sum()
    elif len(class_weights) == logits.shape[1]:
        weight = torch.tensor(class_weights, dtype=logits.dtype, device=logits.device)
        counted = weight[target[labelled]].sum()
    else:
        raise ConfigurationError(
            f"There are {len(class_weights)} class weights for {logits.shape[1]} classes. Give one for each class, "
            "background first, or none."
        )
    if focusing:
        total = _focal_sum(logits, target, weight, ignore_index, focusing)
    else:
        total = F.cross_entropy(logits, target, weight, ignore_index=ignore_index, reduction="sum")
    return total / torch.where(counted > 0, counted, 1)


def _focal_sum(
    logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, focusing: float
) -> Tensor:
    """Sum of the focal loss over pixels; its factor ``(1 - p)^focusing`` gets no gradient."""
    log_p = F.log_softmax(logits, dim=1)
    entropy = F.nll_loss(log_p.detach(), target, ignore_index=ignore_index, reduction="none")
    unsure = -torch.expm1(-entropy)  # 1 - p
    weighted = F.nll_loss(log_p, target, weight, ignore_index=ignore_index, reduction="none")
    return (unsure.pow(focusing) * weighted).sum()


def _soft_dice(probabilities: Tensor, target: Tensor, labelled: Tensor, smooth: float) -> Tensor:
    """Soft Dice of each class ``[C]``, sums over the labelled pixels of the batch."""
    weight = labelled.unsqueeze(1).to(probabilities.dtype)
    one_hot = torch.zeros_like(probabilities)
    one_hot.scatter_(1, torch.where(labelled, target, 0).unsqueeze(1), weight)
    over_batch = (0, 2, 3)
    overlap = (probabilities * one_hot).sum(over_batch)
    total = (probabilities * weight).sum(over_batch) + one_hot.sum(over_batch)
    return (2.0 * overlap + smooth) / (total + smooth)
