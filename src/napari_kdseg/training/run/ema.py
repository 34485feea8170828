"""The exponential moving average of a network's weights, which often scores better than the weights themselves.

Polyak & Juditsky, SIAM J. Control Optim. 1992; in distillation: Tarvainen & Valpola (mean teacher), NeurIPS 2017.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """Averages the parameters and the running statistics of a network over its steps.

    Parameters
    ----------
    network
        What is averaged; it is only read.
    decay
        Share of the old average that stays at each step, below 1.

    Notes
    -----
    After ``n`` steps the decay is ``min(decay, (1 + n) / (10 + n))``, as in TensorFlow: the random weights of the
    beginning are forgotten soon, also in a short run. Integers (the step count of batch normalisation) are copied.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.decay = decay
        self.updates = 0
        self.weights = {key: tensor.detach().clone() for key, tensor in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the network's weights after a step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for key, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                self.weights[key].lerp_(tensor, 1 - decay)
            else:
                self.weights[key].copy_(tensor)

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """Lend the average to the network; it has its own weights back afterwards, to the last bit."""
        own = {key: tensor.detach().clone() for key, tensor in network.state_dict().items()}
        network.load_state_dict(self.weights)
        try:
            yield
        finally:
            network.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """Return the average and the number of steps in it."""
        return {"updates": self.updates, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        self.updates = int(state["updates"])
        for key, tensor in state["weights"].items():
            self.weights[key].copy_(tensor)
