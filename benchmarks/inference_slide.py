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
from torch import nn

from napari_kdseg.networks import NetworkSpec, create, save
from napari_kdseg.slides import TileCache, open_slide

SHAPE, TILE, LEVELS = (40_000, 40_000), 256, 5
BLOCK, MPP = 4096, 0.5
SOURCE = f"synthetic:{BLOCK}x{BLOCK}?seed=3&mpp={MPP}&pen=0"
"""One block of tissue with glass around it: 70 % of it is tissue."""
BACKGROUND = (243, 242, 244)
CLASSES = ("background", "stroma", "gland", "tumour")
NETWORKS = {"student": "enet", "teacher": "unet/resnet34"}


def tissue_blocks() -> np.ndarray:
    """Return which blocks of the slide hold tissue, bool ``[10, 10]``: two sections, 46 of 100 blocks."""
    rows, columns = np.mgrid[:10, :10] + 0.5
    left = ((rows - 4.6) / 4.1) ** 2 + ((columns - 2.6) / 2.1) ** 2 < 1
    right = ((rows - 5.4) / 4.1) ** 2 + ((columns - 7.4) / 2.1) ** 2 < 1
    return left | right


def write_slide(path: Path, blocks: np.ndarray | None = None) -> Path:
    """Write the slide, or a smaller one of the same make, unless it is there from an earlier run.

    Parameters
    ----------
    path
        Of the file, a TIFF.
    blocks
        Which blocks of a smaller slide hold tissue, bool ``[rows, columns]``.
    """
    if path.exists():
        return path
    shape = SHAPE if blocks is None else (blocks.shape[0] * BLOCK, blocks.shape[1] * BLOCK)
    blocks = tissue_blocks() if blocks is None else blocks
    tissue, glass = _encoded_tissue(), _encoded_glass()
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
def _encoded_tissue() -> list[dict[tuple[int, int], bytes]]:
    """Return the encoded tiles of the block by (row, column), level by level."""
    with open_slide(SOURCE, cache=TileCache(0)) as slide:
        pixels = slide.read(0, 0, 0, BLOCK, BLOCK)
    found = []
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


def write_network(path: Path, architecture: str) -> Path:
    """Write a network with random weights that gives each class a share of the tissue, unless it is there."""
    if path.exists():
        return path
    torch.manual_seed(0)
    spec = NetworkSpec(architecture=architecture, classes=CLASSES, mpp=MPP, input_size=512)
    module = create(architecture, 3, len(CLASSES))
    _settle(module, spec)
    return save(path, module, spec)


def _settle(module: nn.Module, spec: NetworkSpec, side: int = 512) -> None:
    """Fit the statistics of batch normalisation to tissue, then centre the logits so that every class appears."""
    from napari_kdseg.networks import to_input

    with open_slide(SOURCE, cache=TileCache(0)) as slide:
        tiles = np.stack([slide.read(0, 1536, 1024 + side * index, side, side) for index in range(4)])
    image = to_input(tiles, spec, "cpu")
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in norms:
        layer.momentum = None  # the average of all batches
    with torch.no_grad():
        module.train()
        for _ in range(2):
            module(image)
        logits = module.eval()(image).double()
        _even_out(module, logits.mean(dim=(0, 2, 3)), logits.std(dim=(0, 2, 3)))
    for layer in norms:
        layer.momentum = 0.1


def _even_out(module: nn.Module, mean: torch.Tensor, spread: torch.Tensor) -> None:
    """Scale the weights of the last convolution, and shift its bias where it has one, to logits of mean 0, spread 1."""
    last = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)][-1]
    axis = 1 if isinstance(last, nn.ConvTranspose2d) else 0
    scale = (1 / spread.clamp_min(1e-6)).to(last.weight)
    last.weight.mul_(scale.reshape([-1 if i == axis else 1 for i in range(4)]))
    if last.bias is not None:
        last.bias.sub_(mean.to(last.bias)).mul_(scale)
