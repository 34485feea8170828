"""Other ways to predict a slide, for ``inference.py``, written as their own documentation shows and given every help.

Each peer gets the network in memory, the tissue mask, and a place to write a class mask to; it opens the slide,
visits the squares of its own grid that hold tissue, and writes uint8 classes to a zarr array whose chunk is such a
square.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from zarr.codecs import ZstdCodec

from napari_kdseg.networks import NetworkSpec
from napari_kdseg.slides import TissueMask

Box = tuple[int, int, int, int]
"""``(y, x, height, width)`` in pixels of full resolution."""
WINDOW, OVERLAP = 512, 0.25
"""What all peers here show the network at once, and how much of it neighbours share."""
MONAI_PATCHES = (1280, 2048)
"""Sides of the patches that MONAI reads; whichever needs fewer windows for the tissue of a region is taken."""


@dataclass(frozen=True)
class Task:
    """What a peer is to do."""

    slide: Path
    module: nn.Module
    spec: NetworkSpec
    tissue: TissueMask
    region: Box
    output: Path
    device: str = "cpu"
    workers: int = 1
    """Processes that read; on two cores a second one takes more from the network than it brings."""


def monai(task: Task) -> Box:
    """``PatchWSIDataset`` and ``SlidingWindowInferer``: 512 px windows one by one, overlap 0.25, Gaussian."""
    from monai.data import PatchWSIDataset
    from monai.inferers import SlidingWindowInferer
    from monai.transforms import Compose, NormalizeIntensityd, ScaleIntensityRanged

    side = min(MONAI_PATCHES, key=lambda side: len(squares(task, side)) * windows_of(side))
    places = squares(task, side)
    normalise = Compose(
        [
            ScaleIntensityRanged("image", 0, 255, 0.0, 1.0),
            NormalizeIntensityd("image", subtrahend=task.spec.mean, divisor=task.spec.std, channel_wise=True),
        ]
    )
    dataset = PatchWSIDataset(
        [{"image": str(task.slide), "location": place} for place in places],
        patch_size=side,
        patch_level=0,
        transform=normalise,
        include_label=False,
        center_location=False,
        reader="openslide",
    )
    inferer = SlidingWindowInferer(WINDOW, sw_batch_size=1, overlap=OVERLAP, mode="gaussian")
    box, out = grid_box(task.region, side), new_mask(task, side)
    module = task.module.eval().to(task.device)
    with torch.inference_mode():
        for place, batch in zip(places, _loader(dataset, task, 1), strict=True):
            logits = inferer(batch["image"].as_tensor().to(task.device), module)
            write(out, box, place, logits.argmax(dim=1)[0])
    return box


def monai_bfloat16(task: Task) -> Box:
    """The same with bfloat16 where torch's autocast uses it."""
    with torch.autocast(task.device, torch.bfloat16):
        return monai(task)


def plain_loop(task: Task) -> Box:
    """``OpenSlide.read_region`` in a ``Dataset``, a ``DataLoader``, the network, the overlap cropped, float32."""
    step = int(WINDOW * (1 - OVERLAP))
    places = squares(task, step)
    loader = _loader(Tiles(task.slide, places, (WINDOW - step) // 2, task.spec), task, 1)
    box, out = grid_box(task.region, step), new_mask(task, step)
    halo = (WINDOW - step) // 2
    done = iter(places)
    module = task.module.eval().to(task.device)
    with torch.inference_mode():
        for batch in loader:
            classes = torch.softmax(module(batch.to(task.device)), dim=1).argmax(dim=1)
            for one in classes[:, halo:-halo, halo:-halo]:
                write(out, box, next(done), one)
    return box


PEERS: dict[str, Callable[[Task], Box]] = {
    "monai": monai,
    "monai_bfloat16": monai_bfloat16,
    "plain_loop": plain_loop,
}


class Tiles(Dataset[Tensor]):
    """Normalised windows around squares, float32 ``[3, 512, 512]``; opens the slide where it reads."""

    def __init__(self, path: Path, places: list[tuple[int, int]], halo: int, spec: NetworkSpec):
        self._path, self._places, self._halo, self._spec = path, places, halo, spec
        self._slide: Any = None

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Tensor:
        from openslide import OpenSlide
        from torchvision.transforms import functional

        if self._slide is None:
            self._slide = OpenSlide(self._path)
        y, x = self._places[index]
        region = self._slide.read_region((x - self._halo, y - self._halo), 0, (WINDOW, WINDOW))
        return functional.normalize(
            functional.to_tensor(region.convert("RGB")), self._spec.mean, self._spec.std
        )


def squares(task: Task, side: int) -> list[tuple[int, int]]:
    """Return ``(y, x)`` of the squares of a grid over the region that hold tissue."""
    y, x, height, width = grid_box(task.region, side)
    return [
        (top, left)
        for top in range(y, y + height, side)
        for left in range(x, x + width, side)
        if task.tissue.covers(top, left, side, side)
    ]


def grid_box(region: Box, side: int) -> Box:
    """Return the region grown to whole squares, from its upper left corner on."""
    y, x, height, width = region
    return y, x, math.ceil(height / side) * side, math.ceil(width / side) * side


def windows_of(side: int) -> int:
    """Return how many windows sliding over a patch takes."""
    return (math.ceil((side - WINDOW) / (WINDOW * (1 - OVERLAP))) + 1) ** 2


def new_mask(task: Task, side: int) -> zarr.Array:
    """Make the array that a peer fills."""
    _, _, height, width = grid_box(task.region, side)
    return zarr.create_array(
        task.output,
        shape=(height, width),
        chunks=(side, side),
        dtype=np.uint8,
        compressors=ZstdCodec(level=1),
        overwrite=True,
    )


def write(out: zarr.Array, box: Box, place: tuple[int, int], classes: Tensor) -> None:
    """Write one square of classes."""
    y, x = place[0] - box[0], place[1] - box[1]
    out[y : y + len(classes), x : x + len(classes)] = classes.to(torch.uint8).cpu().numpy()


def _loader(dataset: Any, task: Task, batch_size: int) -> Iterator[Any]:
    return iter(DataLoader(dataset, batch_size=batch_size, num_workers=task.workers))
