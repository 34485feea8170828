"""A slide of any size that no scanner made: H&E-like, computed tile by tile, with the exact outlines of its glands.

``synthetic:100000x80000?seed=0&mpp=0.25`` names one: width x height in pixels, the seed, and micrometres per pixel.
``stain=3`` stains it in another laboratory; ``folds=0``, ``pen=0`` and ``blur=0`` leave out what goes wrong in one.
``mask=tissue|gland|tumour|classes`` chooses what the ground truth tells; ``classes=3`` is short for ``mask=classes``.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import asdict, dataclass
from functools import lru_cache
from urllib.parse import parse_qsl

import numpy as np

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.readers.backend import Level, Metadata, make_level
from napari_kdseg.slides.synthesis.artefacts import Focus, Folds, Pen
from napari_kdseg.slides.synthesis.histology import TUMOUR_GLAND, Tissue
from napari_kdseg.slides.synthesis.staining import GLASS, Stain
from napari_kdseg.slides.synthesis.synthetic_pictures import label_picture, macro_picture

SCHEME = "synthetic:"
DEFAULT_SIZE = "100000x80000"
TILE = 512
COARSEST = 1024
LOOK = 2
"""Raised when the same address gives other pixels than before, so that no result of the old ones is taken for new."""

NOISE = 1.3
"""Standard deviation of the noise of the scanner at level 0, in grey values."""

MASKS = {
    "gland": ("background", "gland"),
    "tumour": ("background", "tumour gland"),
    "tissue": ("background", "tissue"),
    "classes": ("background", "benign gland", "tumour gland"),
}
"""What the ground truth can tell, and its classes."""


@dataclass(frozen=True)
class Look:
    """What may differ between two synthetic slides of one size.

    Attributes
    ----------
    seed
        Another seed is another tissue.
    mpp
        Micrometres per level-0 pixel.
    stain
        Number of the laboratory that stained it; 0 is the standard one, others differ in strength and hue.
    folds, pen, blur
        Whether there are folds of the tissue, strokes of a pen on the glass, and fields out of focus.
    """

    seed: int = 0
    mpp: float = 0.25
    stain: int = 0
    folds: bool = True
    pen: bool = True
    blur: bool = True


class SyntheticBackend:
    """Compute tiles from their coordinates; coarser levels are computed directly, not from finer ones.

    Parameters
    ----------
    shape
        Pixels (height, width) of level 0.
    look
        Seed, scale, and what it looks like.
    mask
        What :meth:`sample_classes` tells, one of :data:`MASKS`.
    """

    def __init__(self, shape: tuple[int, int], look: Look | None = None, *, mask: str = "gland"):
        self.shape = shape
        self.look = look or Look()
        self.mask = mask
        self.classes = MASKS[mask]
        mpp = self.look.mpp
        self.tissue = Tissue(shape[0] * mpp, shape[1] * mpp, self.look.seed)
        self._stain = Stain(self.tissue, self.look.stain)
        self._folds = Folds(self.tissue) if self.look.folds else None
        self._pen = Pen(self.tissue) if self.look.pen else None
        self._focus = Focus(self.tissue) if self.look.blur else None
        identity = f"{LOOK} {shape} {self.look}"
        self.metadata = Metadata(
            reader="synthetic",
            levels=_levels(shape),
            mpp=(mpp, mpp),
            background=GLASS,
            brightfield=True,
            properties={f"synthetic.{name}": str(value) for name, value in asdict(self.look).items()},
            associated=("label", "macro"),
            reason="It is computed where it is looked at.",
            fingerprint="synthetic:" + hashlib.blake2b(identity.encode(), digest_size=20).hexdigest(),
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
            classes = int(options.pop("classes", 2))
            mask = options.pop("mask", "classes" if classes == 3 else "gland")
            look = Look(
                seed=int(options.pop("seed", 0)),
                mpp=float(options.pop("mpp", 0.25)),
                stain=int(options.pop("stain", 0)),
                **{name: _switch(options.pop(name, "1")) for name in ("folds", "pen", "blur")},
            )
            sizes = 0 < width <= 2**24 and 0 < height <= 2**24 and 0.01 <= look.mpp <= 100
            if not sizes or classes not in (2, 3) or mask not in MASKS or look.stain < 0 or options:
                raise ValueError
        except ValueError as error:
            raise SlideError(
                f"{address} does not name a synthetic slide. Write width x height and what should "
                f"differ from the default, "
                "as in synthetic:100000x80000?seed=0&mpp=0.25; also stain=1, folds=0, pen=0, blur=0, mask=tissue."
            ) from error
        return cls((height, width), look, mask=mask)

    def address(self, mask: str | None = None) -> str:
        """Return the address that names this slide, with this or another of :data:`MASKS`."""
        options = {
            name: int(value) if isinstance(value, bool) else value
            for name, value in asdict(self.look).items()
        }
        query = "&".join(f"{name}={value}" for name, value in {**options, "mask": mask or self.mask}.items())
        return f"{SCHEME}{self.shape[1]}x{self.shape[0]}?{query}"

    def read_tile(self, level: int, row: int, column: int) -> np.ndarray:
        """Compute one tile."""
        there = self.metadata.levels[level]
        height, width = there.tile_shape(row, column)
        pixel = max(there.downsample) * self.look.mpp

        def positions(margin: int) -> tuple[np.ndarray, np.ndarray]:
            rows = np.arange(row * TILE - margin, row * TILE + height + margin)
            columns = np.arange(column * TILE - margin, column * TILE + width + margin)
            return (
                (rows + 0.5) * there.downsample[0] * self.look.mpp,
                (columns + 0.5) * there.downsample[1] * self.look.mpp,
            )

        y, x = positions(0)
        blur = None if self._focus is None or pixel > 3 else self._focus.blur(y, x)
        if blur is None or not blur.any():
            pixels = self._paint(y, x, pixel)
        else:
            margin = Focus.margin(pixel)
            inner = slice(margin, margin + height), slice(margin, margin + width)
            wide = positions(margin)
            pixels = Focus.apply(self._paint(*wide, pixel), self._focus.blur(*wide), pixel)[inner]  # type: ignore[union-attr]
        if self._pen is not None:
            pixels = self._pen.draw(y, x, pixels)
        return pixels if level > 1 else _add(pixels, _scanner_noise(level)[:height, :width])

    def read_associated(self, name: str) -> np.ndarray:
        """Draw the label, or the macro picture."""
        if name not in self.metadata.associated:
            raise KeyError(name)
        look = self.look
        label = label_picture(
            ("synthetic", f"seed {look.seed}, stain {look.stain}", f"{look.mpp:g} um"), look.seed
        )
        if name == "label":
            return label
        last = len(self.metadata.levels) - 1
        rows, columns = self.metadata.levels[last].grid
        tiles = [[self.read_tile(last, i, j) for j in range(columns)] for i in range(rows)]
        return macro_picture(np.concatenate([np.concatenate(line, axis=1) for line in tiles]), label)

    def close(self) -> None:
        """Nothing is held open."""

    def sample_classes(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the ground truth on a grid of positions, uint8 ``[len(rows), len(columns)]``.

        Positions are level-0 pixels counted from the corner of the slide: 0.5 is the centre of the first pixel.
        """
        y, x = rows * self.look.mpp, columns * self.look.mpp
        inside = self.tissue.tissue(y, x)
        if self.mask == "tissue":
            return (inside > 0).astype(np.uint8)
        if inside.max() <= 0:
            return np.zeros(inside.shape, np.uint8)
        classes = self.tissue.region(y, x, inside).classes()
        if self.mask == "tumour":
            return (classes == TUMOUR_GLAND).astype(np.uint8)
        return np.minimum(classes, len(self.classes) - 1)

    def _paint(self, y: np.ndarray, x: np.ndarray, pixel: float) -> np.ndarray:
        """Colours of the tissue, with what is folded over it."""
        stains = self._stain.amounts(y, x, pixel)
        if stains is not None and self._folds is not None:
            whole = stains.reshape(3, len(y), len(x))
            for part, cover, (down, right) in self._folds.cover(y, x):
                self._fold(whole[:, *part], cover, (y[part[0]] + down, x[part[1]] + right), pixel)
        return self._stain.light(stains, (len(y), len(x)))

    def _fold(
        self, below: np.ndarray, cover: np.ndarray, above: tuple[np.ndarray, np.ndarray], pixel: float
    ) -> None:
        """Lay tissue from elsewhere on top, in place; from far away, more of the same is as good."""
        if pixel > 3:
            below *= 1 + cover
            return
        upper = self._stain.amounts(*above, pixel) if cover.any() else None
        if upper is not None:
            below += upper.reshape(below.shape) * (cover * (below[1] > 0))


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(text)
    return text == "1"


@lru_cache(maxsize=2)
def _scanner_noise(level: int) -> np.ndarray:
    """Noise of one tile, int16 ``[TILE, TILE, 3]``: the same in all, which nobody sees in white noise."""
    random = np.random.default_rng(level)
    return np.rint(random.normal(0, NOISE / 2**level, (TILE, TILE, 3))).astype(np.int16)


def _add(pixels: np.ndarray, noise: np.ndarray) -> np.ndarray:
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def _levels(shape: tuple[int, int]) -> tuple[Level, ...]:
    """Halve until the whole slide fits into :data:`COARSEST`."""
    count = max(0, math.ceil(math.log2(max(shape) / COARSEST))) + 1
    sizes = [(math.ceil(shape[0] / 2**k), math.ceil(shape[1] / 2**k)) for k in range(count)]
    return tuple(make_level(size, shape, (TILE, TILE)) for size in sizes)
