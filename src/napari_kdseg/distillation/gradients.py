"""How strongly each part of a loss pulls at the network that is trained: the norms of their gradients, one by one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from napari_kdseg.distillation.declarations import LABELS, WEIGHTED, Stage
from napari_kdseg.networks import shares


def gradient_norms(stage: Stage, values: Mapping[str, Tensor], scale: float = 1.0) -> dict[str, float]:
    r"""Norm of the gradient of the labels' part of the loss, and of each weighted term.

    .. math::
        \lVert \nabla_\theta L_{seg} \rVert_2, \qquad \lVert \nabla_\theta \, w_t L_t \rVert_2 \text{ for each term } t,

    with :math:`\theta` the weights of ``stage.network`` that are trained: not those of connectors or of a critic, which
    decide nothing of what is kept.

    Parameters
    ----------
    stage
        Its network ran when ``values`` were made.
    values
        What :meth:`Stage.loss` returned, before going backward from it. The graph is kept for that, and neither
        gradients that are there, nor anything random, nor a state is touched.
    scale
        What gradients are multiplied by on their way back, and divided by in the end: the loss scale of 16 bits, in
        which small ones are 0 without it.

    Returns
    -------
    dict
        By name of the term, and under ``"segmentation"`` that of the labels; 0 for a part that does not reach the
        network. Infinite or NaN where a gradient overflows. The same in all processes that share a batch.

    Notes
    -----
    Each part costs a backward pass. All processes of a run must call this in the same steps.
    """
    weights = [weight for weight in stage.network.parameters() if weight.requires_grad]
    parts = {LABELS: values[LABELS]} if LABELS in values else {}
    parts |= {
        name.removeprefix(WEIGHTED): value for name, value in values.items() if name.startswith(WEIGHTED)
    }
    norms = [_norm(part, weights, scale) for part in parts.values()]
    return dict(zip(parts, torch.stack(norms).tolist(), strict=True)) if norms else {}


def _norm(part: Tensor, weights: list[nn.Parameter], scale: float) -> Tensor:
    if not part.requires_grad or not weights:
        return torch.zeros((), device=part.device)
    factor = torch.full_like(part, scale)
    found = torch.autograd.grad(part, weights, factor, retain_graph=True, allow_unused=True)
    gradients = [gradient.float() for gradient in found if gradient is not None]
    if not gradients:
        return torch.zeros((), device=part.device)
    if shares().count > 1:  # each has the gradient of its share of the images
        gradients = [shares().add_up(torch.cat([g.flatten() for g in gradients])) / shares().count]
    return torch.nn.utils.get_total_norm(gradients) / scale
