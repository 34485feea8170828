"""Workers on this machine: one a GPU, or one for a few processors."""

from __future__ import annotations

import os
from typing import Any

import torch
from distributed import LocalCluster, Nanny, Scheduler, SpecCluster

from napari_kdseg.inference.network.engine import choose_device
from napari_kdseg.inference.tiles.threads import TILES_AT_ONCE
from napari_kdseg.masks.settings import Device

HOST = "127.0.0.1"


def visible_gpus(device: Device) -> list[str]:
    """Return what ``CUDA_VISIBLE_DEVICES`` calls the GPUs that may be used."""
    if choose_device(device).type != "cuda":
        return []
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named or [str(index) for index in range(torch.cuda.device_count())]


def threads_of_a_worker(threads: int | None) -> int:
    """Return how many threads of a processor a worker uses: enough to compute all tiles that it holds at once."""
    return threads or min(TILES_AT_ONCE, os.cpu_count() or 1)


def start_workers(device: Device, workers: int | None, threads: int | None) -> Any:
    """Start a dask cluster here; close it after use.

    Parameters
    ----------
    device
        As the settings of a prediction have it.
    workers
        How many; ``None`` is one a GPU, or else as many as the processors feed.
    threads
        That compute in each, on processors.
    """
    gpus = visible_gpus(device)
    if gpus:
        return _one_a_gpu(gpus[:workers])
    count = workers or max(1, (os.cpu_count() or 1) // threads_of_a_worker(threads))
    return LocalCluster(
        n_workers=count, threads_per_worker=1, memory_limit=0, host=HOST, dashboard_address=None
    )


def gpu_workers(gpus: list[str]) -> dict[str, dict[str, Any]]:
    """Return what dask is told about workers that see one GPU each."""
    return {
        f"gpu-{gpu}": {
            "cls": Nanny,
            "options": {
                "nthreads": 1, "memory_limit": 0, "host": HOST, "env": {"CUDA_VISIBLE_DEVICES": gpu},
                "dashboard": False,
            },
        }
        for gpu in gpus
    }  # fmt: skip


def _one_a_gpu(gpus: list[str]) -> Any:
    scheduler = {"cls": Scheduler, "options": {"host": HOST, "port": 0, "dashboard": False}}
    return SpecCluster(workers=gpu_workers(gpus), scheduler=scheduler, name="kdseg")
