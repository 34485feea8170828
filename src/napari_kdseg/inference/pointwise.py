"""Convolutions of 1 x 1 by oneDNN also in a thread of its own.

With one thread, torch gives them to an older kernel that takes several times as long, and tiles are computed in threads
of their own here (see :mod:`napari_kdseg.inference.carriers`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PointwiseConv(nn.Module):
    """A convolution of 1 x 1, as it was made."""

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.stride, self.groups = list(convolution.stride), convolution.groups

    def forward(self, x: Tensor) -> Tensor:
        """See :class:`torch.nn.Conv2d`."""
        return torch.mkldnn_convolution(x, self.weight, self.bias, [0, 0], self.stride, [1, 1], self.groups)


def by_onednn(module: nn.Module) -> nn.Module:
    """Replace the 1 x 1 convolutions in ``module``, which is changed, where oneDNN is there for them."""
    if not torch.backends.mkldnn.is_available():
        return module
    for part in module.modules():
        for name, child in part.named_children():
            if type(child) is nn.Conv2d and child.kernel_size == (1, 1) and child.padding == (0, 0):
                setattr(part, name, PointwiseConv(child))
    return module
