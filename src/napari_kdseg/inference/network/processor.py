"""Layers as they are fastest on a processor: the same numbers, without gradients.

Three things cost a small network more time there than its multiply-adds do. An activation is one more pass over memory:
oneDNN applies it to what a convolution has just computed. A convolution of 1 x 1 goes to an older kernel when a forward
pass has one thread, as it has here (see :mod:`~napari_kdseg.inference.tiles.threads`).
And a pooling of three interleaved
colours cannot use vector instructions: rows are pooled first, then what is left of the columns.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_kdseg.inference.network.fusing import same_results
from napari_kdseg.inference.network.layer_pairs import consecutive_layers, replace_layer

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU)
#: Images of so few channels are pooled by rows and columns.
NARROW = 4


class Convolution(nn.Module):
    """A convolution by oneDNN, with the activation that follows it.

    Parameters
    ----------
    convolution
        What it does, with whose weights.
    activation
        One of those that oneDNN knows, or none.
    """

    def __init__(self, convolution: nn.Conv2d, activation: nn.Module | None = None):
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self._geometry = [
            list(convolution.padding),
            list(convolution.stride),
            list(convolution.dilation),
            convolution.groups,
        ]
        words = _in_words_of_onednn(activation)
        if words is None:
            raise ValueError(f"oneDNN knows no {activation}")
        self._activation = words

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` -> ``[N, C, h, w]``."""
        run = torch.ops.mkldnn._convolution_pointwise
        return run(x, self.weight, self.bias, *self._geometry, *self._activation)


class MaxPool(nn.Module):
    """Max pooling of images of few channels, the window's rows first.

    Parameters
    ----------
    pooling
        What it does; its window, stride and padding are the same along both axes, and it keeps no indices.
    """

    def __init__(self, pooling: nn.MaxPool2d):
        super().__init__()
        self._pooling = pooling
        self._window = cast(int, pooling.kernel_size)
        self._stride, self._padding = cast(int, pooling.stride), cast(int, pooling.padding)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` -> ``[N, C, h, w]``."""
        if x.shape[1] > NARROW:
            return self._pooling(x)
        window, stride = self._window, self._stride
        x = functional.pad(x, (self._padding,) * 4, value=-torch.inf)
        for axis in (2, 3):
            count = (x.shape[axis] - window) // stride + 1
            rows = [
                x.narrow(axis, start, (count - 1) * stride + 1)[
                    (slice(None),) * axis + (slice(None, None, stride),)
                ]
                for start in range(window)
            ]
            x = rows[0]
            for row in rows[1:]:
                x = torch.maximum(x, row)
        return x


def for_processor(module: nn.Module, example: Tensor) -> nn.Module:
    """Return a network that shares the weights of ``module`` and gives its numbers, but no gradients, in less time.

    Parameters
    ----------
    module
        In eval mode, on the CPU, in float32; ``[N, C_in, H, W]`` -> ``[N, C, H, W]``.
    example
        An input that it takes.

    Returns
    -------
    nn.Module
        ``module`` itself where oneDNN is not there, or where results would change.
    """
    if not torch.backends.mkldnn.is_available():
        return module
    weights = {id(item): item for item in (*module.parameters(), *module.buffers())}
    quick = copy.deepcopy(module, dict(weights))
    for convolution_path, activation_path in consecutive_layers(quick, example, (nn.Conv2d,), ACTIVATIONS):
        convolution, activation = quick.get_submodule(convolution_path), quick.get_submodule(activation_path)
        if (
            isinstance(convolution, nn.Conv2d)
            and _is_plain(convolution)
            and _in_words_of_onednn(activation) is not None
        ):
            replace_layer(quick, convolution_path, Convolution(convolution, activation))
            replace_layer(quick, activation_path, nn.Identity())
    for path, layer in list(quick.named_modules()):
        if type(layer) is nn.Conv2d and layer.kernel_size == (1, 1) and _is_plain(layer):
            replace_layer(quick, path, Convolution(layer))
        elif type(layer) is nn.MaxPool2d and _is_regular(layer):
            replace_layer(quick, path, MaxPool(layer))
    return quick if same_results(module, quick, example) else module


def _is_plain(convolution: nn.Conv2d) -> bool:
    return convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)


def _is_regular(pooling: nn.MaxPool2d) -> bool:
    numbers = (pooling.kernel_size, pooling.stride, pooling.padding, pooling.dilation)
    return all(isinstance(number, int) for number in numbers) and not (
        pooling.dilation != 1 or pooling.ceil_mode or pooling.return_indices
    )


def _in_words_of_onednn(activation: nn.Module | None) -> tuple[str, list[Any], str] | None:
    """Return name, constants and algorithm; ``None`` for what it does not know."""
    if activation is None:
        return "none", [], ""
    if isinstance(activation, nn.PReLU):
        one = activation.weight.numel() == 1
        return ("leaky_relu", [activation.weight.item()], "") if one else None
    if isinstance(activation, nn.LeakyReLU):
        return "leaky_relu", [activation.negative_slope], ""
    if isinstance(activation, nn.ReLU6):
        return "hardtanh", [0.0, 6.0], ""
    return "relu", [], ""
