"""Which layer of a network is the one that a method names ``"@deep"``, so that it need not know the network.

They are those that the papers tap: CoCo DistillNet an encoder and a decoder layer at 1/4, EMKD the first and the last
pair of the same size at 1/2 and 1/8, most others the feature that the classifier reads.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.networks.anatomy.describe import last_feature, unwrap
from napari_kdseg.networks.foreign.token_grid import TokenGrid
from napari_kdseg.networks.papers.blocks import PaperNetwork

NAMED_LAYERS = {
    "@stem": "end of the encoder's first level, at 1/2",
    "@shallow": "end of the encoder's level at 1/4",
    "@middle": "end of the encoder's level at 1/8",
    "@bottom": "the deepest feature, at the lowest resolution",
    "@deep": "the decoder's level at 1/4",
    "@feature": "what the classifier reads",
}
_ENCODER_STRIDES = {"@stem": 2, "@shallow": 4, "@middle": 8}
_DECODER_STRIDE = 4
_SIDES = (64, 128, 256)
_DEEPEST = 32


def find_taps(network: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, str]:
    """Find the layer of ``network`` for each of :data:`NAMED_LAYERS`.

    The networks of papers name them; in others they are found by passing a blank image through.

    Parameters
    ----------
    network
        Segmentation network; its weights and running statistics are not touched.
    input_shape
        ``(D, H, W)`` of an image; only the channels matter.

    Returns
    -------
    dict
        Name -> path for :func:`~napari_kdseg.networks.capture`. A network without a layer at the wanted resolution
        gets the nearest.
    """
    module = unwrap(network)
    if isinstance(module, PaperNetwork):
        first = module.first_named_layers if module.keeps_first_named_layers else {}
        return {**module.named_layers, **first, "@feature": module.last_feature}
    if isinstance(module, TokenGrid):
        return module.named_layers()
    layers = _layers_with_strides(module, input_shape[0])
    feature = last_feature(module)
    paths = [path for path, _ in layers]
    end = paths.index(feature) + 1 if feature in paths else len(layers)
    encoder, decoder = _divide(layers[:end])
    deepest = max(stride for _, stride in encoder)
    found = {name: _at(encoder, stride) for name, stride in _ENCODER_STRIDES.items()}
    found["@bottom"] = _at(encoder, deepest)
    found["@deep"] = _at(decoder or encoder, _DECODER_STRIDE)
    found["@feature"] = feature
    return found


def keep_named_layers(network: nn.Module, revision: int) -> None:
    """Let names stand for the layers of ``revision`` from here on, for a run that began with those."""
    module = unwrap(network)
    if isinstance(module, PaperNetwork):
        module.keeps_first_named_layers = revision == 1


def is_layer_name(tap: str) -> bool:
    """Whether a tap is a name such as ``"@deep"``, which each network has its own layer for, and not a path."""
    return tap.startswith("@")


def tap_of(found: Mapping[str, str], tap: str) -> str:
    """Replace a name by its layer; a path stays as it is.

    Raises
    ------
    ConfigurationError
        If no layer has that name.
    """
    if not is_layer_name(tap):
        return tap
    if tap not in found:
        raise ConfigurationError(f"No layer is called {tap!r}. Choose {', '.join(NAMED_LAYERS)}, or a path.")
    return found[tap]


def _divide(layers: list[tuple[str, int]]) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Divide into encoder and decoder: by name where there is an encoder, else after the lowest resolution."""
    encoder = [layer for layer in layers if re.match(r"encoder\b", layer[0])]
    if encoder:
        return encoder, [layer for layer in layers if layer not in encoder]
    deepest = max(stride for _, stride in layers)
    turn = max(index for index, (_, stride) in enumerate(layers) if stride == deepest) + 1
    return layers[:turn], layers[turn:]


def _layers_with_strides(module: nn.Module, channels: int) -> list[tuple[str, int]]:
    """Every feature map in the order of completion, with the input pixels that one of its pixels spans."""
    seen: list[tuple[str, int, int]] = []

    def note(path: str, output: Any) -> None:
        if isinstance(output, list | tuple):
            for index, part in enumerate(output):
                note(f"{path}[{index}]", part)
        elif isinstance(output, Tensor) and output.ndim == 4 and output.shape[1] > 0:
            seen.append((path, output.shape[-2], output.shape[-1]))

    hooks = [
        layer.register_forward_hook(lambda _layer, _inputs, output, path=path: note(path, output))
        for path, layer in module.named_modules()
        if path
    ]
    training = module.training
    try:
        side = _pass_blank_image(module.eval(), channels, seen)
    finally:
        module.train(training)
        for hook in hooks:
            hook.remove()
    square = [(path, side // width) for path, height, width in seen if height == width and side % width == 0]
    return [(path, stride) for path, stride in square if stride <= _DEEPEST]


def _pass_blank_image(module: nn.Module, channels: int, seen: list[Any]) -> int:
    """Return the side of the smallest image that the network takes; some pool so often that 64 pixels are too few."""
    some = next(module.parameters())
    for side in _SIDES:
        seen.clear()
        try:
            with torch.no_grad():
                module(torch.zeros(1, channels, side, side, device=some.device, dtype=some.dtype))
        except (RuntimeError, ValueError):
            if side == _SIDES[-1]:
                raise
        else:
            return side
    raise AssertionError("unreachable: the last side returns or raises")


def _at(layers: list[tuple[str, int]], wanted: int) -> str:
    """The outermost layer whose stride is nearest to ``wanted``; of several, the last."""

    def order(item: tuple[int, tuple[str, int]]) -> tuple[float, int, int]:
        index, (path, stride) = item
        return abs(math.log2(stride / wanted)), path.count("."), -index

    return min(enumerate(layers), key=order)[1][0]
