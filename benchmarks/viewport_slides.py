"""Slides for ``viewport.py``: H&E-like JPEG pyramids of any size, made in seconds from a few hundred encoded tiles.

As on real slides, the larger part is background: tissue covers 37 % of the area.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from napari_kdseg.slides import open_slide

SOURCE = "synthetic:8192x8192?seed=3&mpp=0.5"
BLOCKS = 3
"""Regions per level that tiles are cut from."""
TISSUE = 0.37
"""Share of the tiles that show tissue."""
BACKGROUND = (243, 242, 244)


@cache
def regions() -> list[np.ndarray]:
    """Return regions of tissue at all magnifications of a slide, 1024 x 1024."""
    random, found = np.random.default_rng(0), []
    with open_slide(SOURCE) as slide:
        for index, level in enumerate(slide.levels):
            for _ in range(BLOCKS):
                y, x = (int(random.integers(0, max(side - 1024, 0) + 1)) for side in level.shape)
                found.append(slide.read(index, y, x, 1024, 1024))
    return found


@cache
def encoded_tiles(tile: int) -> list[bytes]:
    """Return JPEG tiles (quality 80, 4:2:0) of tissue."""
    return [
        encode(np.ascontiguousarray(region[top : top + tile, left : left + tile]))
        for region in regions()
        for top in range(0, 1024, tile)
        for left in range(0, 1024, tile)
    ]


def encode(pixels: np.ndarray) -> bytes:
    """Encode one tile as slides have it."""
    return imagecodecs.jpeg8_encode(pixels, level=80, outcolorspace="ycbcr", subsampling="420")


def draw_tiles(tile: int, seed: int) -> Callable[[int], list[bytes]]:
    """Return a function that draws encoded tiles at random: tissue, or background with the noise of a camera."""
    random = np.random.default_rng(seed)
    tissue = encoded_tiles(tile)
    glass = []
    for _ in range(16):
        noise = random.normal(0, 1.5, (tile, tile, 3)) + BACKGROUND
        glass.append(encode(np.clip(noise, 0, 255).astype(np.uint8)))

    def draw(count: int) -> list[bytes]:
        kinds, chosen = random.random(count) < TISSUE, random.integers(0, 2**31, count)
        return [
            tissue[i % len(tissue)] if kind else glass[i % len(glass)]
            for kind, i in zip(kinds, chosen.tolist(), strict=True)
        ]

    return draw


def write_slide(path: Path, shape: tuple[int, int], tile: int, *, levels: int = 6) -> Path:
    """Write a pyramid halved from level to level, its tiles drawn at random from a few hundred."""
    draw = draw_tiles(tile, seed=1)
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for index in range(levels):
            height, width = shape[0] >> index, shape[1] >> index
            count = math.ceil(height / tile) * math.ceil(width / tile)
            tif.write(
                iter(draw(count)),
                shape=(height, width, 3),
                dtype=np.uint8,
                tile=(tile, tile),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                subfiletype=int(index > 0),
                resolution=(20_000 / 2**index, 20_000 / 2**index),
                resolutionunit="CENTIMETER",
                metadata=None,
            )
    return path


def write_giant(path: Path, shape: tuple[int, int], tile: int, *, levels: int = 7) -> Path:
    """Write a slide of which any number of tiles share their bytes: gigapixels in a few megabytes on disk."""
    drawn, random = draw_tiles(tile, seed=2)(256), np.random.default_rng(2)
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for index in range(levels):
            height, width = shape[0] >> index, shape[1] >> index
            count = math.ceil(height / tile) * math.ceil(width / tile)
            tif.write(
                (drawn[0] if i == 0 else b"" for i in range(count)),
                shape=(height, width, 3),
                dtype=np.uint8,
                tile=(tile, tile),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                subfiletype=int(index > 0),
                metadata=None,
            )
    offsets, end = [], path.stat().st_size
    with path.open("ab") as stream:
        for blob in drawn:
            offsets.append(end)
            end += stream.write(blob)
    lengths = [len(blob) for blob in drawn]
    with tifffile.TiffFile(path, mode="r+") as tif:
        for page in tif.pages:
            chosen = random.integers(0, len(drawn), len(page.dataoffsets))
            page.tags["TileOffsets"].overwrite([offsets[i] for i in chosen])
            page.tags["TileByteCounts"].overwrite([lengths[i] for i in chosen])
    return path


def random_views(
    number: int, shape: tuple[int, int], levels: int, side: int = 1024
) -> list[tuple[int, int, int]]:
    """Return (level, y, x) of views of ``side`` x ``side`` pixels, over all levels alike."""
    random = np.random.default_rng(3)
    views = []
    for _ in range(number):
        level = int(random.integers(levels))
        y, x = (int(random.integers(0, max((extent >> level) - side, 0) + 1)) for extent in shape)
        views.append((level, y, x))
    return views


def covered_tiles(path: Path, views: list[tuple[int, int, int]], side: int = 1024) -> list[list[bytes]]:
    """Return the encoded tiles under each view, from memory from then on."""
    found = []
    with tifffile.TiffFile(path) as tif:
        for level, y, x in views:
            page, handle = tif.pages[level], tif.filehandle
            tile = page.tilewidth
            rows, columns = math.ceil(page.imagelength / tile), math.ceil(page.imagewidth / tile)
            under = []
            for row in range(y // tile, min(math.ceil((y + side) / tile), rows)):
                for column in range(x // tile, min(math.ceil((x + side) / tile), columns)):
                    handle.seek(page.dataoffsets[row * columns + column])
                    under.append(handle.read(page.databytecounts[row * columns + column]))
            found.append(under)
    return found
