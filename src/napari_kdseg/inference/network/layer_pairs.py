"""Which layer takes exactly what another has just put out: pairs that can be merged into one pass over memory."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

Kinds = tuple[type[nn.Module], ...]


def followers(module: nn.Module, example: Tensor, first: Kinds, then: Kinds) -> list[tuple[str, str]]:
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
    paths = {part: path for path, part in module.named_modules()}
    produced: dict[int, tuple[nn.Module, Tensor]] = {}
    pairs: list[tuple[nn.Module, nn.Module]] = []
    calls: Counter[nn.Module] = Counter()

    def after_first(part: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[part] += 1
        produced[id(output)] = (part, output)  # kept alive, so that no other tensor gets its identity

    def before_then(part: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[part] += 1
        if id(inputs[0]) in produced:
            pairs.append((produced[id(inputs[0])][0], part))

    hooks = []
    for part in module.modules():
        if type(part) in first:
            hooks.append(part.register_forward_hook(after_first))
        elif type(part) in then:
            hooks.append(part.register_forward_pre_hook(before_then))
    try:
        with torch.inference_mode():
            module(example)
    finally:
        for hook in hooks:
            hook.remove()
    taken = Counter(part for part, _ in pairs)
    return [
        (paths[one], paths[other]) for one, other in pairs if calls[one] == calls[other] == taken[one] == 1
    ]


def put(module: nn.Module, path: str, part: nn.Module) -> None:
    """Put ``part`` where ``path`` leads to in ``module``."""
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, part)
