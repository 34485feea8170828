"""What a network costs by its layers alone: multiply-adds. Measured figures are those of the rooms that run it."""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode


def multiply_adds(module: nn.Module, height: int, width: int, in_channels: int = 3) -> int:
    """Count the multiply-adds of one image: those of convolutions, matrix products and attention, as papers do.

    Nothing is computed: the layers see tensors that have a shape but no values.

    Parameters
    ----------
    module
        Left as it was.
    height, width, in_channels
        Of the image, in pixels.

    Returns
    -------
    int
        Half of what :class:`torch.utils.flop_counter.FlopCounterMode` counts, which is both operations.
    """
    tensors = itertools.chain(module.named_parameters(), module.named_buffers())
    shapes = {name: tensor.to("meta") for name, tensor in tensors}
    image = torch.zeros(1, in_channels, height, width, device="meta")
    training = module.training
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            functional_call(module.eval(), shapes, image)
    finally:
        module.train(training)
    return counter.get_total_flops() // 2
