"""Several processes that train one network together: how they find each other, stop together, and share a device each.

They are started from outside, by ``kdseg distill --processes``, ``torchrun`` or ``srun``, which tell each by
environment variables how many there are and which it is. What they share is in
:mod:`napari_kdseg.networks.parallel.sharing`.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.jobs import Control, Emit, Event, JobCancelled, Paused, Resumed
from napari_kdseg.networks import LostProcessError, Shares, among
from napari_kdseg.training.config import DistillConfig

PATIENCE = timedelta(minutes=10)
"""A process that waited so long for another takes it for lost; one that was killed is noticed at once with gloo."""

BLINK = 0.2
"""Seconds between two looks whether a pause is over."""


def process_count() -> int:
    """How many processes train together, as their starter says; 1 where none does."""
    return int(os.environ["WORLD_SIZE"]) if {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys() else 1


def process_number() -> int:
    """Which of them this is, from 0."""
    return int(os.environ["RANK"]) if process_count() > 1 else 0


def processes_here() -> int:
    """How many of them run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", process_count())) if process_count() > 1 else 1


def make_fabric(config: DistillConfig) -> Fabric:
    """Choose device and precision: one GPU a process, by its number on this machine, or the processors.

    Raises
    ------
    ConfigurationError
        If the computer does not have what was asked for.
    """
    gpu = torch.cuda.is_available()
    if config.device == "cuda" and not gpu:
        raise ConfigurationError("No GPU was found that CUDA can use. Choose the device 'auto' or 'cpu'.")
    on_gpu = gpu and config.device != "cpu"
    if config.precision == "16" and not on_gpu:
        raise ConfigurationError("16 bits need a GPU. Choose the precision 'auto' or '32'.")
    names = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
    automatic = "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported() else "32-true"
    precision: Any = names.get(config.precision, automatic)
    accelerator = "cuda" if on_gpu else "cpu"
    if process_count() == 1:
        return Fabric(accelerator=accelerator, devices=1, precision=precision)
    here = processes_here()
    if on_gpu and torch.cuda.device_count() < here:
        raise ConfigurationError(
            f"{here} processes on this machine need a GPU each, but it has {torch.cuda.device_count()}. Start as many "
            "processes as there are GPUs, or choose the device 'cpu'."
        )
    backend = "nccl" if on_gpu else "gloo"
    return Fabric(
        accelerator=accelerator,
        devices=here,
        num_nodes=process_count() // here,
        precision=precision,
        strategy=DDPStrategy(
            cluster_environment=TorchElasticEnvironment(), process_group_backend=backend, timeout=PATIENCE
        ),
    )


@contextmanager
def connected(fabric: Fabric, config: DistillConfig) -> Iterator[Shares]:
    """Connect the processes of a run; while the block runs, batches are divided among them.

    They stay connected for the next run in the same processes.

    Raises
    ------
    ConfigurationError
        If there are more processes than tiles in a batch.
    LostProcessError
        If they do not find each other.
    """
    count = process_count()
    if count == 1:
        with among(Shares()) as ours:
            yield ours
        return
    demand_shareable(config, count)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it tells who is who; nobody asked
    try:
        fabric.launch()
    except (RuntimeError, OSError, ValueError) as error:
        raise LostProcessError(
            f"The {count} processes of this run did not find each other ({error}). Start all of them, with the same "
            "MASTER_ADDR and MASTER_PORT, and let machines reach each other at that port."
        ) from error
    atexit.register(_disconnect)
    with among(Shares(process_number(), count, fabric.device)) as ours:
        yield ours


def _disconnect() -> None:
    """End the threads of gloo, which the interpreter cannot (lightning-fabric does so for NCCL)."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def demand_shareable(config: DistillConfig, count: int) -> None:
    """Refuse more processes than tiles in a batch.

    Raises
    ------
    ConfigurationError
        If there are.
    """
    if config.batch_size < count:
        raise ConfigurationError(
            f"A batch of {config.batch_size} tiles cannot be shared by {count} processes. Start at most "
            f"{config.batch_size} processes, or raise the batch size; it counts the tiles of all processes together."
        )


def quiet_unless_first(emit: Emit, ours: Shares) -> Emit:
    """Return an ``emit`` that is heard of the first process only."""

    def unheard(event: Event) -> None:
        """Leave the events to the first process."""

    return emit if ours.first else unheard


class SharedControl(Control):
    """Pause and cancel of several processes: what one of them is asked to do, all do at the same check.

    Parameters
    ----------
    control
        That of this process.
    emit
        Receives :class:`Paused` and :class:`Resumed`.
    ours
        The processes. All have to come to each check.
    """

    def __init__(self, control: Control, emit: Emit, ours: Shares):
        super().__init__(emit)
        self._own, self._ours = control, ours

    def check(self) -> None:
        """Wait here while one of the processes is paused.

        Raises
        ------
        JobCancelled
            If one of them was asked to stop.
        """
        wish = self._ours.largest(self._wish())
        if wish == 1:
            self._emit(Paused())
            while wish == 1:
                time.sleep(BLINK)
                wish = self._ours.largest(self._wish())
            if wish == 0:
                self._emit(Resumed())
        if wish == 2:
            raise JobCancelled

    def _wish(self) -> int:
        return 2 if self._own.cancelled else 1 if self._own.paused else 0


def shared_control(control: Control, emit: Emit, ours: Shares) -> Control:
    """Return the control that all processes obey; with one process its own."""
    return control if ours.count == 1 else SharedControl(control, emit, ours)


def demand_alike(ours: Shares, **seen: str) -> None:
    """Compare what the processes see of the world, by a number each.

    Parameters
    ----------
    ours
        The processes.
    **seen
        Text by its name in words, underscores for blanks.

    Raises
    ------
    ConfigurationError
        If two of them see something else.
    """
    for name, text in seen.items():
        number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")
        if not ours.agree(number):
            raise ConfigurationError(
                f"The processes of this run see different {name.replace('_', ' ')}. Start all with the same command "
                "and the same versions, and put data and run folder where every machine sees them under the same path."
            )
