"""Which layer feeds the classifier of a network that is not known by name: found by running it on a blank image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from napari_kdseg.errors import ConfigurationError

_SIDES = (64, 128, 256)
_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def feature_before_classifier(module: nn.Module) -> str:
    """Find the layer whose output the last convolution reads.

    Parameters
    ----------
    module
        Network; neither weights nor running statistics are touched.

    Returns
    -------
    str
        Dotted path of the outermost such layer. Where an operation that is no layer lies between (a sum, a resizing),
        the layer before that.

    Raises
    ------
    ConfigurationError
        If the network has no convolution, or does not run on a blank image.
    """
    convolutions = [part for part in module.modules() if isinstance(part, _CONVOLUTIONS)]
    if not convolutions:
        raise ConfigurationError(_message(module))
    seen: list[tuple[str, nn.Module, Tensor]] = []
    read: dict[nn.Module, tuple[int, Tensor]] = {}

    def before(part: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(part, _CONVOLUTIONS) and inputs and isinstance(inputs[0], Tensor):
            read[part] = (len(seen), inputs[0])

    def after(path: str, part: nn.Module, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            seen.append((path, part, output))

    hooks = [part.register_forward_pre_hook(before) for part in convolutions]
    hooks += [
        part.register_forward_hook(lambda part, _inputs, output, path=path: after(path, part, output))
        for path, part in module.named_modules()
        if path
    ]
    training = module.training
    try:
        _run(module.eval(), convolutions[0].in_channels)
    finally:
        module.train(training)
        for hook in hooks:
            hook.remove()
    last = max(read.values(), key=lambda item: item[0], default=None)
    if last is None or not last[0]:
        raise ConfigurationError(_message(module))
    count, feature = last
    same = [path for path, _, output in seen[:count] if output is feature]
    return min(same, key=lambda path: path.count(".")) if same else seen[count - 1][0]


def _run(module: nn.Module, channels: int) -> None:
    some = next(module.parameters())
    for side in _SIDES:
        try:
            with torch.no_grad():
                module(torch.zeros(1, channels, side, side, device=some.device, dtype=some.dtype))
        except (RuntimeError, ValueError) as error:
            if side == _SIDES[-1]:
                raise ConfigurationError(_message(module)) from error
        else:
            return


def _message(module: nn.Module) -> str:
    return (
        f"It is not known which layer of a {type(module).__name__} feeds its classifier. Name the layer in the "
        "settings of the method (student_layers, teacher_layers)."
    )
