"""Optimiser, learning rate schedule and deterministic mode of a stage, as the configuration says."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from napari_kdseg.training.settings import OptimiserConfig

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


def make_optimiser(
    parameters: Sequence[nn.Parameter], config: OptimiserConfig, rate: float
) -> torch.optim.Optimizer:
    """Build AdamW, Adam or SGD.

    Parameters
    ----------
    parameters
        What it steps.
    config
        Which, and its constants.
    rate
        Learning rate at the start: that of ``config``, times the stage's factor.
    """
    if config.name == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=rate,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
        )
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(parameters, lr=rate, weight_decay=config.weight_decay)


def rate_factor(config: OptimiserConfig, done: int, total: int) -> float:
    """Return what the learning rate is multiplied by at step ``done`` (from 0) of ``total``; it is never 0.

    Parameters
    ----------
    config
        Schedule and warm-up.
    done, total
        Steps of the stage.

    Notes
    -----
    With ``w`` steps of warm-up the factor is ``(done + 1) / w`` up to step ``w``; then, with the share
    ``t = (done - w) / (total - w)``, it is ``(1 - t) ** power`` (poly, DeepLab), ``(1 + cos(pi t)) / 2`` (cosine;
    Loshchilov & Hutter, ICLR 2017) or 1 (constant).
    """
    warm = warm_up_steps(config, total)
    if done < warm:
        return (done + 1) / warm
    share = (done - warm) / (total - warm)
    if config.schedule == "poly":
        return (1 - share) ** config.poly_power
    if config.schedule == "cosine":
        return (1 + math.cos(math.pi * share)) / 2
    return 1.0


def warm_up_steps(config: OptimiserConfig, total: int) -> int:
    """Return the steps of the warm-up: below 1 it is a share of ``total``, from 1 on a number of steps."""
    steps = config.warm_up * total if config.warm_up < 1 else config.warm_up
    return min(round(steps), total)


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Let torch use deterministic algorithms for a while.

    An operation that has none on this device warns, and is computed all the same. On a CPU with the same number of
    threads everything is deterministic without this.
    """
    if not wanted:
        yield
        return
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    workspace = os.environ.get(CUBLAS)
    os.environ.setdefault(CUBLAS, ":4096:8")  # without it cuBLAS may add up in another order
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
        if workspace is None:
            os.environ.pop(CUBLAS, None)
