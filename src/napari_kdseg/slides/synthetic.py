"""A slide of any size that no scanner made: H&E-like, computed tile by tile, with the exact outlines of its glands.

``synthetic:100000x80000?seed=0&mpp=0.25`` names one: width x height in pixels, the seed, and micrometres per pixel.
With ``classes=3`` its ground truth tells tumour glands from benign ones.
"""

from __future__ import annotations

import hashlib
import math
import re
from urllib.parse import parse_qsl

import numpy as np

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.backend import Level, Metadata, make_level
from napari_kdseg.slides.histology import Tissue
from napari_kdseg.slides.staining import GLASS, Stain

SCHEME = "synthetic:"
DEFAULT_SIZE = "100000x80000"
TILE = 512
COARSEST = 1024
CLASSES = {2: ("background", "gland"), 3: ("background", "benign gland", "tumour gland")}


class SyntheticBackend:
    """Compute tiles from their coordinates; coarser levels are computed directly, not from finer ones.

    Parameters
    ----------
    shape
        Pixels (height, width) of level 0.
    seed
        Another seed is another slide.
    mpp
        Micrometres per pixel.
    class_count
        2 (background, gland) or 3 (background, benign gland, tumour gland).
    """

    def __init__(self, shape: tuple[int, int], *, seed: int = 0, mpp: float = 0.25, class_count: int = 2):
        self.shape = shape
        self.seed = seed
        self.mpp = mpp
        self.classes = CLASSES[class_count]
        self.tissue = Tissue(shape[0] * mpp, shape[1] * mpp, seed)
        self._stain = Stain(self.tissue)
        self.metadata = Metadata(
            reader="synthetic",
            levels=_levels(shape),
            mpp=(mpp, mpp),
            background=GLASS,
            brightfield=True,
            properties={"synthetic.seed": str(seed), "synthetic.mpp": str(mpp)},
            fingerprint="synthetic:"
            + hashlib.blake2b(f"1 {shape} {seed} {mpp}".encode(), digest_size=20).hexdigest(),
        )

    @classmethod
    def parse(cls, address: str) -> SyntheticBackend:
        """Read a ``synthetic:`` address.

        Raises
        ------
        SlideError
            If it does not name a slide.
        """
        size, _, query = address.removeprefix(SCHEME).partition("?")
        try:
            match = re.fullmatch(r"(\d+)x(\d+)", size or DEFAULT_SIZE)
            options = dict(parse_qsl(query, strict_parsing=bool(query)))
            width, height = (int(side) for side in match.groups()) if match else (0, 0)
            seed, mpp = int(options.pop("seed", 0)), float(options.pop("mpp", 0.25))
            classes = int(options.pop("classes", 2))
            if (
                not (0 < width <= 2**24 and 0 < height <= 2**24 and 0.01 <= mpp <= 100 and classes in CLASSES)
                or options
            ):
                raise ValueError
        except ValueError as error:
            raise SlideError(
                f"{address} does not name a synthetic slide. Write width x height and what should "
                f"differ from the default, "
                "as in synthetic:100000x80000?seed=0&mpp=0.25"
            ) from error
        return cls((height, width), seed=seed, mpp=mpp, class_count=classes)

    def read_tile(self, level: int, row: int, column: int) -> np.ndarray:
        """Compute one tile."""
        there = self.metadata.levels[level]
        height, width = there.tile_shape(row, column)
        y = self._centres(row * TILE, height, there.downsample[0])
        x = self._centres(column * TILE, width, there.downsample[1])
        return self._stain.paint(y, x, max(there.downsample) * self.mpp)

    def read_associated(self, name: str) -> np.ndarray:
        """It has none."""
        raise KeyError(name)

    def close(self) -> None:
        """Nothing is held open."""

    def sample_classes(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the ground truth on a grid of positions, uint8 ``[len(rows), len(columns)]``.

        Positions are level-0 pixels counted from the corner of the slide: 0.5 is the centre of the first pixel.
        """
        y, x = rows * self.mpp, columns * self.mpp
        inside = self.tissue.tissue(y, x)
        if inside.max() <= 0:
            return np.zeros(inside.shape, np.uint8)
        classes = self.tissue.region(y, x, inside).classes()
        return np.minimum(classes, len(self.classes) - 1)

    def _centres(self, start: int, count: int, downsample: float) -> np.ndarray:
        return (np.arange(start, start + count) + 0.5) * downsample * self.mpp


def _levels(shape: tuple[int, int]) -> tuple[Level, ...]:
    """Halve until the whole slide fits into :data:`COARSEST`."""
    count = max(0, math.ceil(math.log2(max(shape) / COARSEST))) + 1
    sizes = [(math.ceil(shape[0] / 2**k), math.ceil(shape[1] / 2**k)) for k in range(count)]
    return tuple(make_level(size, shape, (TILE, TILE)) for size in sizes)
