"""Slides that no scanner made (:mod:`napari_kdseg.synthetic`): tiles are computed where they are looked at."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np

from napari_kdseg.slides.readers.backend import Level, Metadata, make_level
from napari_kdseg.synthetic.address import Look
from napari_kdseg.synthetic.scanner import with_noise
from napari_kdseg.synthetic.slide import SyntheticSlide
from napari_kdseg.synthetic.staining import GLASS

TILE = 512
COARSEST = 1024


class SyntheticBackend(SyntheticSlide):
    """A synthetic slide in tiles, as its scanner would have kept it."""

    def __init__(self, shape: tuple[int, int], look: Look | None = None, *, mask: str = "gland"):
        super().__init__(shape, look, mask=mask)
        self.metadata = Metadata(
            reader="synthetic",
            levels=_levels(shape),
            mpp=(self.look.mpp, self.look.mpp),
            background=GLASS,
            brightfield=True,
            properties={
                f"synthetic.{name}": str(value)
                for name, value in asdict(self.look).items()
                if value is not None
            },
            associated=("label", "macro"),
            reason="It is computed where it is looked at.",
            fingerprint=self.fingerprint,
            bounds=self.look.bounds,
        )

    def read_tile(self, level: int, row: int, column: int) -> np.ndarray:
        """Compute one tile."""
        there = self.metadata.levels[level]
        pixels = self.read(there.downsample, row * TILE, column * TILE, *there.tile_shape(row, column))
        return with_noise(pixels, level, TILE)

    def read_associated(self, name: str) -> np.ndarray:
        """Draw the label, or the macro picture."""
        if name not in self.metadata.associated:
            raise KeyError(name)
        if name == "label":
            return self.label()
        last = len(self.metadata.levels) - 1
        rows, columns = self.metadata.levels[last].grid
        tiles = [[self.read_tile(last, i, j) for j in range(columns)] for i in range(rows)]
        return self.macro(np.concatenate([np.concatenate(line, axis=1) for line in tiles]))

    def close(self) -> None:
        """Nothing is held open."""


def _levels(shape: tuple[int, int]) -> tuple[Level, ...]:
    """Halve until the whole slide fits into :data:`COARSEST`."""
    count = max(0, math.ceil(math.log2(max(shape) / COARSEST))) + 1
    sizes = [(math.ceil(shape[0] / 2**k), math.ceil(shape[1] / 2**k)) for k in range(count)]
    return tuple(make_level(size, shape, (TILE, TILE)) for size in sizes)
