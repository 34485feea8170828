"""How strongly each term of a loss pulls at the weights, beside the labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

SEGMENTATION = "segmentation"
WEIGHTED = "weighted/"
SCALE = 2.0**10
"""Losses are multiplied by it before, so that gradients in half precision do not vanish; norms are divided by it."""


def gradient_norms(values: Mapping[str, Tensor], parameters: Iterable[nn.Parameter]) -> dict[str, float]:
    """Return the norm of the gradient of the segmentation loss, and of each weighted term, by name.

    Parameters
    ----------
    values
        What :meth:`Stage.loss` returned: ``segmentation``, ``weighted/<term>`` ... Their graphs are kept.
    parameters
        Weights that the gradients are taken with respect to; a term that reaches none of them has a norm of 0.
    """
    weights = [parameter for parameter in parameters if parameter.requires_grad]
    terms = {name.removeprefix(WEIGHTED): values[name] for name in values if name.startswith(WEIGHTED)}
    norms = {
        name: _norm(term, weights) for name, term in {SEGMENTATION: values[SEGMENTATION], **terms}.items()
    }
    return dict(zip(norms, torch.stack(list(norms.values())).tolist(), strict=True))


def _norm(term: Tensor, weights: list[nn.Parameter]) -> Tensor:
    if not weights or not term.requires_grad:
        return torch.zeros((), device=term.device)
    found = torch.autograd.grad(term * SCALE, weights, retain_graph=True, allow_unused=True)
    norms = [gradient.float().norm() for gradient in found if gradient is not None]
    if not norms:
        return torch.zeros((), device=term.device)
    return torch.linalg.vector_norm(torch.stack(norms)) / SCALE
