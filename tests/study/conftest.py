"""A small folder of tiles, and the study of it that a user would write."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLE = """
task: blobs
data:
  folder: tiles
  input_size: 32
teachers:
  - architecture: unet/tu-resnet18
    options: {encoder_depth: 3, decoder_channels: [16, 8, 8]}
students: [enet]
methods: [alone, kd, plc-kd, "plc-kd:f+b"]
settings: {plc-kd: {assistant_epochs_factor: 1.0, queue_length: 64}}
seeds: [0]
label_fractions: [0.4]
steps: 4
batch_size: 4
validations: 1
teacher_epochs: 2
teacher_validations: 1
augmentation: {stain_probability: 0, light_probability: 0, blur_probability: 0, scale_probability: 0}
remember_teacher: true
device: cpu
threads: THREADS
output: study
"""


def blobs(index: int, side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Pink ground with a violet disc and, on every second tile, a brown one."""
    random = np.random.default_rng(index)
    image = np.full((side, side, 3), (225, 170, 200), np.float64)
    mask = np.zeros((side, side), np.uint8)
    rows, columns = np.mgrid[:side, :side]
    for c, colour in list(enumerate([(110, 60, 150), (120, 80, 40)], start=1))[: 1 + index % 2]:
        y, x = random.uniform(side * 0.25, side * 0.75, 2)
        disc = (rows - y) ** 2 + (columns - x) ** 2 < (side * random.uniform(0.15, 0.3)) ** 2
        image[disc], mask[disc] = colour, c
    image += random.normal(0, 12, image.shape)
    return image.clip(0, 255).astype(np.uint8), mask


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes forty tiles and a study of them, changed line by line."""

    def make(**changes: str) -> Path:
        for sub in ("images", "masks"):
            (tmp_path / "tiles" / sub).mkdir(parents=True, exist_ok=True)
        for index in range(40):
            for sub, pixels in zip(("images", "masks"), blobs(index), strict=True):
                Image.fromarray(pixels).save(tmp_path / "tiles" / sub / f"tile{index:03d}.png")
        lines = EXAMPLE.replace("THREADS", os.environ["OMP_NUM_THREADS"]).strip().splitlines()
        for name, value in changes.items():
            lines = [f"{name}: {value}" if line.startswith(f"{name}:") else line for line in lines]
        path = tmp_path / "study.yaml"
        path.write_text("\n".join(lines) + "\n")
        return path

    return make
