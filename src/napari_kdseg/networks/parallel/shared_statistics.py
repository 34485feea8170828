"""Batch normalisation over a batch that several processes share: mean and variance of the whole batch, on any device.

The SyncBatchNorm of torch needs a GPU. This one takes the place of ``torch.nn.functional.batch_norm`` while a network
runs on its share, so that networks stay as they are, whoever wrote their layers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

AddUp = Callable[[Tensor], Tensor]
_SIGNATURE = inspect.signature(F.batch_norm)


class WholeBatchStatistics(TorchFunctionMode):
    """While it is entered, batch normalisation in training uses the statistics of all shares.

    Parameters
    ----------
    add_up
        Replaces a tensor by its sum over the processes.
    ratio
        Items of the whole batch for each item of the share.
    """

    def __init__(self, add_up: AddUp, ratio: float):
        super().__init__()
        self.add_up, self.ratio = add_up, ratio

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Take the place of batch normalisation in training, and of nothing else."""
        if function is F.batch_norm:
            given = _SIGNATURE.bind(*args, **(kwargs or {}))
            given.apply_defaults()
            if given.arguments["training"]:
                return self._normalise(**given.arguments)
        return function(*args, **(kwargs or {}))

    def _normalise(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        training: bool,  # noqa: ARG002
        momentum: float,
        eps: float,
    ) -> Tensor:
        count = round(input.numel() / input.shape[1] * self.ratio)
        normalised, mean, variance = _Normalise.apply(input, weight, bias, count, eps, self.add_up)
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                unbiased = variance * (count / max(count - 1, 1))
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
                running_var.lerp_(unbiased.to(running_var.dtype), momentum)
        return normalised  # type: ignore[no-any-return]


class _Normalise(torch.autograd.Function):
    """``weight (x - mean) / sqrt(variance + eps) + bias`` and its gradient, with sums over all processes."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, count: int, eps: float, add_up: AddUp
    ) -> tuple[Tensor, Tensor, Tensor]:
        over = [dimension for dimension in range(x.ndim) if dimension != 1]
        full = _full(x)
        mean = add_up(full.sum(over)) / count
        centred = full - _channels(mean, x)
        variance = add_up(centred.square().sum(over)) / count
        factor = torch.rsqrt(variance + eps)
        normalised = centred * _channels(factor, x)
        ctx.save_for_backward(x, weight, mean, factor)
        ctx.count, ctx.add_up, ctx.over, ctx.has_bias = count, add_up, over, bias is not None
        ctx.mark_non_differentiable(mean, variance)
        if weight is not None:
            normalised = normalised * _channels(_full(weight), x)
        if bias is not None:
            normalised = normalised + _channels(_full(bias), x)
        return normalised.to(x.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, factor = ctx.saved_tensors
        gradient = _full(gradients[0])
        normalised = (_full(x) - _channels(mean, x)) * _channels(factor, x)
        of_bias, of_weight = gradient.sum(ctx.over), (gradient * normalised).sum(ctx.over)
        sums = ctx.add_up(torch.stack([of_bias, of_weight])) / ctx.count
        scale = factor if weight is None else factor * _full(weight)
        of_x = gradient - _channels(sums[0], x) - normalised * _channels(sums[1], x)
        return (
            (of_x * _channels(scale, x)).to(x.dtype),
            None if weight is None else of_weight.to(weight.dtype),
            of_bias.to(gradients[0].dtype if weight is None else weight.dtype) if ctx.has_bias else None,
            None,
            None,
            None,
        )


def _channels(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (like.ndim - 2))


def _full(values: Tensor) -> Tensor:
    """Return half precision as float32, and leave what is finer."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
