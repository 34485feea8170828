"""The fastest tile and batch for a network on this machine, tried on tiles of noise."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from napari_kdseg.inference.network.engine import Engine
from napari_kdseg.inference.tiles.blending import blending_halo
from napari_kdseg.memory import give_back
from napari_kdseg.networks.foreign.onnx_network import OnnxNetwork

#: A person who points at a place waits for one batch.
LONGEST_BATCH_S = 2.0
#: Memory that all batches under way may take together on a CPU, and the share of what is free on a GPU.
CPU_BYTES = 1_200_000_000
GPU_SHARE = 0.6
#: Bytes a pixel that a pass takes beside its layers.
BESIDE = 200
#: Bytes a pixel of a network whose layers nobody can see: those of a U-Net with 64 channels at full size.
UNSEEN = BESIDE + 2 * 4 * 2 * 64
TILES = {"cpu": (256, 512, 768, 1024), "cuda": (512, 1024, 2048)}
BATCHES = {"cpu": (1, 2, 4), "cuda": (1, 2, 4, 8, 16, 32)}
#: A larger tile or batch has to be faster by this much to be worth the longer wait for it.
WORTH = 1.05


class Tuning(BaseModel):
    """What was found.

    Attributes
    ----------
    tile, batch_size
        The fastest of those tried.
    mpx_per_s
        Millions of result pixels a second that the network then gives in all threads, reading and writing aside.
    """

    model_config = ConfigDict(frozen=True)

    tile: int
    batch_size: int
    mpx_per_s: float


def tune(
    engine: Engine,
    halo: int | None,
    multiple: int,
    pool: ThreadPoolExecutor,
    at_once: int,
    *,
    tile: int | None = None,
    batch_size: int | None = None,
) -> Tuning:
    """Find the fastest tile and batch.

    Parameters
    ----------
    engine
        Runs the network.
    halo
        Context around a tile; ``None`` for what blending takes, which grows with the tile.
    multiple
        Total downsampling of the network.
    pool, at_once
        Threads that compute, and how many: as many batches are under way at the same time, and share caches and memory.
    tile, batch_size
        Those that are fixed already.
    """
    kind = "cuda" if engine.device.type == "cuda" else "cpu"
    free = torch.cuda.mem_get_info(engine.device)[0] * GPU_SHARE if kind == "cuda" else CPU_BYTES
    most_pixels = free / at_once / bytes_per_pixel(engine, multiple)
    best: Tuning | None = None
    for side in (tile,) if tile else _multiples(TILES[kind], multiple):
        window = side + 2 * (blending_halo(side, multiple) if halo is None else halo)
        for batch in (batch_size,) if batch_size else BATCHES[kind]:
            if best is not None and batch * window**2 > most_pixels:
                break
            seconds = _seconds(engine, window, side, batch, pool, at_once)
            give_back()
            if seconds is None or (best is not None and seconds > LONGEST_BATCH_S):
                break
            found = Tuning(tile=side, batch_size=batch, mpx_per_s=at_once * batch * side**2 / 1e6 / seconds)
            if best is None or found.mpx_per_s > WORTH * best.mpx_per_s:
                best = found
            elif batch > 1:
                break
    assert best is not None, "the first one tried is taken in any case"
    return best


def bytes_per_pixel(engine: Engine, multiple: int) -> float:
    """Estimate the memory that a forward pass takes, in bytes a pixel of its window.

    Twice what the most expensive layer reads and writes: features that wait for a later layer take about as much. And
    what was seen beside it: the window as bytes and as numbers, what poolings remember, what the allocator cannot use.
    The layers of an ONNX file cannot be looked at: what was found when it was written counts, else :data:`UNSEEN`.
    """
    if isinstance(engine.module, OnnxNetwork):
        return engine.module.facts.bytes_per_pixel if engine.module.facts else UNSEEN
    most = 0

    def look(_layer: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        nonlocal most
        tensors = [item for item in (*inputs, output) if isinstance(item, torch.Tensor)]
        most = max(most, sum(item.numel() * item.element_size() for item in tensors))

    side = max(128, 4 * multiple)
    hooks = [layer.register_forward_hook(look) for layer in engine.layers()]
    try:
        engine.logits(engine.collate([np.zeros((side, side, engine.spec.in_channels), np.uint8)]))
    finally:
        for hook in hooks:
            hook.remove()
    return BESIDE + 2 * most / side**2


def _seconds(
    engine: Engine, window: int, side: int, batch: int, pool: ThreadPoolExecutor, at_once: int
) -> float | None:
    """Return how long a batch takes among others; ``None`` if the memory of a GPU does not hold them."""
    noise = np.random.default_rng(0).integers(0, 256, (window, window, engine.spec.in_channels), np.uint8)
    start = (window - side) // 2
    core = (slice(start, start + side), slice(start, start + side))

    def once(_index: int) -> None:
        engine.classify(engine.collate([noise], batch), core, probability=False, checked=False)()

    times = []
    try:
        for _ in range(3):
            began = time.perf_counter()
            list(pool.map(once, range(at_once)))
            times.append(time.perf_counter() - began)
            if times[-1] > LONGEST_BATCH_S:
                break
    except torch.cuda.OutOfMemoryError:
        if batch == 1:
            raise
        torch.cuda.empty_cache()
        return None
    return min(times)


def _multiples(sides: Iterable[int], multiple: int) -> list[int]:
    return sorted({-(-side // multiple) * multiple for side in sides})
