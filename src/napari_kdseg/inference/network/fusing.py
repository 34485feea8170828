"""Batch normalisation folded into the convolution before it: the same numbers with one pass over memory less."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_kdseg.inference.network.layer_pairs import consecutive_layers, replace_layer
from napari_kdseg.networks.single_image import PooledNorm2d

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
    pairs = consecutive_layers(module, example, (nn.Conv2d, nn.ConvTranspose2d), NORMALISATIONS)
    copied = copy.deepcopy(module)
    for convolution_path, norm_path in pairs:
        convolution, norm = copied.get_submodule(convolution_path), copied.get_submodule(norm_path)
        if norm.track_running_stats:
            transposed = isinstance(convolution, nn.ConvTranspose2d)
            merged = fuse_conv_bn_eval(cast(nn.Conv2d, convolution), cast(nn.BatchNorm2d, norm), transposed)
            replace_layer(copied, convolution_path, merged)
            replace_layer(copied, norm_path, nn.Identity())
    return copied if same_results(module, copied, example) else module


def same_results(module: nn.Module, changed: nn.Module, example: Tensor) -> bool:
    """Whether two networks give the same logits for an example, but for rounding."""
    with torch.inference_mode():
        expected, got = module(example), changed(example)
    return float((got - expected).abs().max()) <= TOLERANCE * max(float(expected.abs().max()), 1e-6)
