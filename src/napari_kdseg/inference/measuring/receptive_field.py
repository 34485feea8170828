"""How far a network looks: the halo that makes a tiled prediction equal to that of the whole image.

Measured by gradient: the input pixels that move a cell of the output are those whose derivative is not zero. A network
without gradients (an ONNX file) is measured by change: where everything beyond a line is replaced by other noise, the
output changes as far on this side of the line as the network looks. A narrow strip tells as much as a square, at a
hundredth of the cost, because the reach along one axis does not depend on the size along the other.
"""

from __future__ import annotations

import torch
from torch import nn

#: Networks that look further are taken to see the whole image.
LIMIT = 1024
NEAR = 160
NARROW = 128
IMAGES = 2


def receptive_field_radius(
    module: nn.Module, in_channels: int, multiple: int, limit: int = LIMIT
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
        (networks with attention, squeeze-and-excitation or image pooling see everything).
    """
    measured = _reach if any(True for _ in module.parameters()) else _reach_by_change
    for tried in sorted({min(NEAR, limit), limit}):
        reach = max(measured(module, in_channels, tried, multiple, axis) for axis in (0, 1))
        if reach < tried:
            return -(-reach // multiple) * multiple
    return None


def _strip(in_channels: int, length: int, multiple: int, axis: int) -> tuple[int, ...]:
    """Return the shape of strips that are long along ``axis``."""
    breadth = max(NARROW, 4 * multiple)
    return (IMAGES, in_channels, *((length, breadth) if axis == 0 else (breadth, length)))


def _reach_by_change(module: nn.Module, in_channels: int, radius: int, multiple: int, axis: int) -> int:
    """Return how far along ``axis`` an output changes from the line beyond which its input did, at most ``radius``.

    Lines lie at multiples, as the edges of tiles do.
    """
    line = -(-radius // multiple) * multiple
    shape = _strip(in_channels, 2 * line, multiple, axis)
    generator = torch.Generator().manual_seed(0)
    image, other = (torch.randn(shape, generator=generator) for _ in range(2))
    reach = 0
    with torch.inference_mode():
        before = module(image)
        for beyond in (slice(line, None), slice(None, line)):
            changed = image.clone()
            area = [slice(None)] * 4
            area[2 + axis] = beyond
            changed[tuple(area)] = other[tuple(area)]
            differ = (module(changed) != before).any(dim=1).any(dim=0).any(dim=1 - axis)
            touched = torch.nonzero(differ).flatten().tolist()
            if touched:
                reach = max(reach, line - touched[0] if beyond.start else touched[-1] - line + 1)
    return min(radius, reach)


def _reach(module: nn.Module, in_channels: int, radius: int, multiple: int, axis: int) -> int:
    """Return how far along ``axis`` the gradient of the central cell reaches, at most ``radius``."""
    parameter = next(module.parameters())
    margin = -(-radius // multiple) * multiple
    shape = _strip(in_channels, 2 * margin + multiple, multiple, axis)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(shape, generator=generator).to(parameter.device).requires_grad_()
    with torch.enable_grad():
        output = module(image).narrow(2 + axis, margin, multiple)
        weights = torch.randn(output.shape, generator=generator).to(parameter.device)
        (gradient,) = torch.autograd.grad((output * weights).sum(), image)
    seen = (gradient.abs().amax(dim=(0, 1)) > 0).any(dim=1 - axis)
    touched = torch.nonzero(seen).flatten().tolist()
    if not touched:
        return 0
    return min(radius, max(margin - touched[0], touched[-1] - (margin + multiple - 1), 0))
