"""The slide and the networks of ``inference.py``: made here in seconds, the same every time.

The slide is 40,000 x 40,000 px, a JPEG pyramid of 256 px tiles, a third of it tissue. One piece of synthetic
histology of 4096 x 4096 px is computed and encoded; pieces of it and of empty glass are laid out like the sections on
a slide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
import torch
from torch import Tensor
from torch.nn import functional

from napari_kdseg.networks import NetworkSpec, create, save, to_input
from napari_kdseg.slides import TileCache, open_annotation, open_slide

SHAPE, TILE, LEVELS = (40_000, 40_000), 256, 5
BLOCK, MPP = 4096, 0.5
SOURCE = f"synthetic:{{side}}x{{side}}?seed=3&mpp={MPP}&pen=0"
"""One block of tissue with glass around it: 70 % of it is tissue."""
BACKGROUND = (243, 242, 244)
CLASSES = ("background", "gland", "tumour gland")
NETWORKS = {"student": ("enet", 120), "teacher": ("unet/resnet34", 50)}
"""Architectures, and steps of training: it takes a minute or two, once."""
PATCH, PATCHES, RATE = 256, 4, 3e-3


def tissue_blocks() -> np.ndarray:
    """Return which blocks of the slide hold tissue, bool ``[10, 10]``: two sections, 46 of 100 blocks."""
    rows, columns = np.mgrid[:10, :10] + 0.5
    left = ((rows - 4.6) / 4.1) ** 2 + ((columns - 2.6) / 2.1) ** 2 < 1
    right = ((rows - 5.4) / 4.1) ** 2 + ((columns - 7.4) / 2.1) ** 2 < 1
    return left | right


def write_slide(path: Path, blocks: np.ndarray | None = None, haste: bool = False) -> Path:
    """Write the slide, or a smaller one of the same make, unless it is there from an earlier run.

    Parameters
    ----------
    path
        Of the file, a TIFF.
    blocks
        Which blocks of a smaller slide hold tissue, bool ``[rows, columns]``.
    haste
        Whether a quarter of a block is computed and repeated.
    """
    if path.exists():
        return path
    shape = SHAPE if blocks is None else (blocks.shape[0] * BLOCK, blocks.shape[1] * BLOCK)
    blocks = tissue_blocks() if blocks is None else blocks
    tissue, glass = _encoded_tissue(haste), _encoded_glass()
    part = path.with_suffix(".part")
    with tifffile.TiffWriter(part, bigtiff=True) as tif:
        for level in range(LEVELS):
            height, width = shape[0] >> level, shape[1] >> level
            tif.write(
                _tiles(level, shape, tissue[level], glass, blocks),
                shape=(height, width, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                subfiletype=int(level > 0),
                resolution=(1e4 / MPP / 2**level, 1e4 / MPP / 2**level),
                resolutionunit="CENTIMETER",
                metadata=None,
            )
    part.rename(path)
    return path


def _tiles(
    level: int,
    shape: tuple[int, int],
    tissue: dict[tuple[int, int], bytes],
    glass: list[bytes],
    blocks: np.ndarray,
) -> Iterator[bytes]:
    """Lay encoded tiles of one level out, row by row."""
    side = BLOCK // TILE >> level  # tiles of a block
    rows, columns = (math.ceil((extent >> level) / TILE) for extent in shape)
    for row in range(rows):
        for column in range(columns):
            if blocks[row // side, column // side]:
                yield tissue[row % side, column % side]
            else:
                yield glass[(7 * row + column) % len(glass)]


@cache
def _histology(haste: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the block of tissue, uint8 ``[h, w, 3]``, and its classes, uint8 ``[h, w]``."""
    side = BLOCK // 2 if haste else BLOCK
    source = SOURCE.format(side=side)
    with open_slide(source, cache=TileCache(0)) as slide:
        truth = open_annotation(f"{source}&mask=classes", slide)
        pixels, classes = slide.read(0, 0, 0, side, side), truth.read_scaled(1.0, 0, 0, side, side)
    times = BLOCK // side
    return np.tile(pixels, (times, times, 1)), np.tile(classes, (times, times))


@cache
def _encoded_tissue(haste: bool) -> list[dict[tuple[int, int], bytes]]:
    """Return the encoded tiles of the block by (row, column), level by level."""
    (pixels, _), found = _histology(haste), []
    for _ in range(LEVELS):
        places = [
            (row, column) for row in range(len(pixels) // TILE) for column in range(len(pixels) // TILE)
        ]
        found.append({place: _encode(_cut(pixels, *place)) for place in places})
        pixels = pixels.reshape(len(pixels) // 2, 2, -1, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    return found


def _cut(pixels: np.ndarray, row: int, column: int) -> np.ndarray:
    tile = pixels[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
    return np.ascontiguousarray(tile)


def _encoded_glass() -> list[bytes]:
    """Return empty glass with the noise of a camera."""
    random, glass = np.random.default_rng(0), []
    for _ in range(16):
        noise = random.normal(0, 1.5, (TILE, TILE, 3)) + BACKGROUND
        glass.append(_encode(np.clip(noise, 0, 255).astype(np.uint8)))
    return glass


def _encode(pixels: np.ndarray) -> bytes:
    """Encode one tile as scanners do: quality 80, 4:2:0."""
    return imagecodecs.jpeg8_encode(pixels, level=80, outcolorspace="ycbcr", subsampling="420")


def write_network(path: Path, name: str, haste: bool = False) -> Path:
    """Train the student or the teacher for a moment, unless it is there from an earlier run.

    Random weights behave like no network that anybody uses: every pixel depends on every other, and all classes tie.
    In haste they will do: speed does not depend on them.
    """
    if path.exists():
        return path
    architecture, steps = NETWORKS[name]
    torch.manual_seed(0)
    spec = NetworkSpec(architecture=architecture, classes=CLASSES, mpp=MPP, input_size=PATCH)
    module = create(architecture, 3, len(CLASSES)).to(memory_format=torch.channels_last)
    if haste:
        return save(path, module.eval(), spec)
    optimiser = torch.optim.AdamW(module.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    random = np.random.default_rng(0)
    for _ in range(steps):
        tiles, classes = _patches(random)
        optimiser.zero_grad()
        loss = functional.cross_entropy(module(to_input(tiles, spec, "cpu")), classes)
        loss.backward()
        optimiser.step()
        schedule.step()
    return save(path, module.eval(), spec)


def _patches(random: np.random.Generator) -> tuple[np.ndarray, Tensor]:
    """Return patches of the histology, uint8 ``[PATCHES, PATCH, PATCH, 3]``, and their classes."""
    pixels, classes = _histology(haste=False)
    places = random.integers(0, BLOCK - PATCH, (PATCHES, 2))
    cuts = [(slice(y, y + PATCH), slice(x, x + PATCH)) for y, x in places]
    return np.stack([pixels[cut] for cut in cuts]), torch.from_numpy(
        np.stack([classes[cut] for cut in cuts])
    ).long()
