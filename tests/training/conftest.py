"""Small training folders made on the spot: coloured blobs on a tissue-like ground."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Maker = Callable[..., Path]


def blob_tile(index: int, size: int = 32, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Pink ground with a violet disc; with three classes also a brown one."""
    random = np.random.default_rng(index)
    image = np.full((size, size, 3), (225, 170, 200), np.float64)
    mask = np.zeros((size, size), np.uint8)
    rows, columns = np.mgrid[:size, :size]
    for c, colour in list(enumerate([(110, 60, 150), (120, 80, 40)], start=1))[: classes - 1]:
        y, x = random.uniform(size * 0.25, size * 0.75, 2)
        disc = (rows - y) ** 2 + (columns - x) ** 2 < (size * random.uniform(0.15, 0.3)) ** 2
        image[disc], mask[disc] = colour, c
    image += random.normal(0, 12, image.shape)
    return image.clip(0, 255).astype(np.uint8), mask


@pytest.fixture
def blob() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Return the function that makes image and mask of a tile by its number."""
    return blob_tile


@pytest.fixture
def make_tiles(tmp_path: Path) -> Maker:
    """Return a function that writes a training folder of ``count`` tiles."""

    def make(
        count: int = 16,
        *,
        size: int = 32,
        classes: int = 2,
        white: bool = False,
        manifest: list[dict[str, object]] | None = None,
        name: str = "tiles",
    ) -> Path:
        folder = tmp_path / name
        for sub in ("images", "masks"):
            (folder / sub).mkdir(parents=True)
        for index in range(count):
            image, mask = blob_tile(index, size, classes)
            Image.fromarray(image).save(folder / "images" / f"tile{index:03d}.png")
            Image.fromarray(mask * 255 if white else mask).save(folder / "masks" / f"tile{index:03d}.png")
        if manifest is not None:
            write_manifest(folder, manifest)
        return folder

    return make


def write_manifest(folder: Path, rows: list[dict[str, object]]) -> None:
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
