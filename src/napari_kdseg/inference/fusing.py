"""Batch normalisation folded into the convolution before it: the same numbers with one pass over memory less.

Pairs are found by running the network once: a normalisation whose input is what a convolution just returned. Whether
nothing else used that output cannot be seen from outside, so the fused network is checked against the original.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_kdseg.networks.single_image import PooledNorm2d

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
#: By exact type: other classes that derive from these may do more than normalise.
NORMALISATIONS = (nn.BatchNorm2d, PooledNorm2d)
#: Largest relative change of a logit that rounding explains.
TOLERANCE = 1e-3


def fused(module: nn.Module, example: Tensor) -> nn.Module:
    """Return a copy of ``module`` with its normalisations folded in, or ``module`` itself where that changes results.

    Parameters
    ----------
    module
        In eval mode; ``[N, C_in, H, W]`` -> ``[N, C, H, W]``.
    example
        An input that it takes.

    Returns
    -------
    nn.Module
        In eval mode.
    """
    pairs = _pairs(module, example)
    if not pairs:
        return module
    copied = copy.deepcopy(module)
    for convolution_path, norm_path in pairs:
        convolution, norm = copied.get_submodule(convolution_path), copied.get_submodule(norm_path)
        merged = fuse_conv_bn_eval(convolution, norm, isinstance(convolution, nn.ConvTranspose2d))
        _replace(copied, convolution_path, merged)
        _replace(copied, norm_path, nn.Identity())
    with torch.inference_mode():
        expected, got = module(example), copied(example)
    scale = float(expected.abs().max())
    return copied if float((got - expected).abs().max()) <= TOLERANCE * max(scale, 1e-6) else module


def _pairs(module: nn.Module, example: Tensor) -> list[tuple[str, str]]:
    """Run the network and return the paths of every convolution that one normalisation follows at once."""
    paths = {part: path for path, part in module.named_modules()}
    produced: dict[int, tuple[nn.Module, Tensor]] = {}
    pairs: list[tuple[str, str]] = []
    seen: set[nn.Module] = set()

    def after_convolution(part: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        produced[id(output)] = (part, output)  # kept alive, so that no other tensor gets its identity

    def before_norm(part: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found = produced.get(id(inputs[0]))
        if found is not None and not {part, found[0]} & seen:
            pairs.append((paths[found[0]], paths[part]))
        seen.update([part] if found is None else [part, found[0]])

    hooks = []
    for part in module.modules():
        if isinstance(part, CONVOLUTIONS):
            hooks.append(part.register_forward_hook(after_convolution))
        elif type(part) in NORMALISATIONS and part.track_running_stats:
            hooks.append(part.register_forward_pre_hook(before_norm))
    try:
        with torch.inference_mode():
            module(example)
    finally:
        for hook in hooks:
            hook.remove()
    return pairs


def _replace(module: nn.Module, path: str, part: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, part)
