"""How far a network looks: the halo that makes a tiled prediction equal to that of the whole image.

Measured by gradient: the input pixels that move one cell of the output are those whose derivative is not zero.
"""

from __future__ import annotations

import torch
from torch import nn


def receptive_field_radius(
    module: nn.Module, in_channels: int, multiple: int, limit: int = 512
) -> int | None:
    """Measure the receptive-field radius of a network in eval mode.

    Parameters
    ----------
    module
        ``[N, C_in, H, W]`` -> ``[N, C, H, W]``.
    in_channels, multiple
        Its input channels, and what its input sides must be a multiple of.
    limit
        Give up beyond this radius.

    Returns
    -------
    int or None
        Pixels on every side of an output pixel, rounded up to ``multiple``; ``None`` if there are more than ``limit``
        (networks with attention or image pooling see everything).
    """
    device = next(module.parameters()).device
    radius = max(multiple, 32)
    while radius <= limit:
        reach = _reach(module, in_channels, radius, multiple, device)
        if reach < radius:
            return -(-reach // multiple) * multiple
        radius *= 2
    return None


def _reach(module: nn.Module, in_channels: int, radius: int, multiple: int, device: torch.device) -> int:
    """Return how far the gradient of the central cell reaches, at most ``radius``."""
    margin = -(-radius // multiple) * multiple
    side = 2 * margin + multiple
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, in_channels, side, side, generator=generator).to(device).requires_grad_()
    centre = slice(margin, margin + multiple)
    with torch.enable_grad():
        output = module(image)[..., centre, centre]
        weights = torch.randn(output.shape, generator=generator).to(device)
        (gradient,) = torch.autograd.grad((output * weights).sum(), image)
    seen = gradient.abs().amax(dim=(0, 1)) > 0
    touched = torch.nonzero(seen.any(dim=1) | seen.any(dim=0)).flatten().tolist()
    if not touched:
        return 0
    return min(radius, max(margin - touched[0], touched[-1] - (margin + multiple - 1), 0))
