"""Which layer takes exactly what another has just put out: pairs that can be merged into one pass over memory."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

Kinds = tuple[type[nn.Module], ...]


def consecutive_layers(
    module: nn.Module, example: Tensor, first: Kinds, then: Kinds
) -> list[tuple[str, str]]:
    """Run a network once, and find layers whose input is what another layer just returned.

    Whether nothing else used that output cannot be seen from outside: who merges a pair compares results.

    Parameters
    ----------
    module
        In eval mode.
    example
        An input that it takes.
    first, then
        Types of the layers.

    Returns
    -------
    list of tuple of str
        Paths of both layers; only of such that run once in a pass.
    """
    paths = {layer: path for path, layer in module.named_modules()}
    produced: dict[int, tuple[nn.Module, Tensor]] = {}
    pairs: list[tuple[nn.Module, nn.Module]] = []
    calls: Counter[nn.Module] = Counter()

    def after_first(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[layer] += 1
        produced[id(output)] = (layer, output)  # kept alive, so that no other tensor gets its identity

    def before_then(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[layer] += 1
        if id(inputs[0]) in produced:
            pairs.append((produced[id(inputs[0])][0], layer))

    hooks = []
    for layer in module.modules():
        if type(layer) in first:
            hooks.append(layer.register_forward_hook(after_first))
        elif type(layer) in then:
            hooks.append(layer.register_forward_pre_hook(before_then))
    try:
        with torch.inference_mode():
            module(example)
    finally:
        for hook in hooks:
            hook.remove()
    taken = Counter(layer for layer, _ in pairs)
    return [
        (paths[one], paths[other]) for one, other in pairs if calls[one] == calls[other] == taken[one] == 1
    ]


def replace_layer(module: nn.Module, path: str, layer: nn.Module) -> None:
    """Put ``layer`` in the place of the one that ``module`` has at ``path``."""
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, layer)
