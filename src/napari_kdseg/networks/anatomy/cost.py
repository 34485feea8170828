"""What a network costs by its layers alone: multiply-adds and memory. Seconds are those of the rooms that run it."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
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


def peak_bytes(module: nn.Module, image: Tensor) -> int:
    """Measure the memory that tensors take at the worst moment of a pass, in bytes; weights and ``image`` aside.

    What libraries use inside a layer is not seen, and it is the same on every machine.

    Parameters
    ----------
    module
        In evaluation mode, on the device of ``image``.
    image
        ``[N, C_in, H, W]``.
    """
    with torch.inference_mode(), _LiveTensors() as live:
        module(image)
    return live.most


class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of tensors made inside, from when they are made to when nobody has them any more."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, memory: torch.UntypedStorage) -> None:
        identity, size = memory._cdata, memory.nbytes()
        if identity not in self._known:
            self._known.add(identity)
            self._now += size
            self.most = max(self.most, self._now)
            weakref.finalize(memory, self._remove, identity, size)

    def _remove(self, identity: int, size: int) -> None:
        self._known.discard(identity)
        self._now -= size
