"""A slide of any size that no scanner made: H&E-like, computed where it is looked at, with the exact masks of it."""

from __future__ import annotations

import hashlib
from typing import Self

import numpy as np

from napari_kdseg.synthetic.address import MASKS, SCHEME, Look, format_address, parse_address
from napari_kdseg.synthetic.artefacts import Focus, Folds, Pen
from napari_kdseg.synthetic.histology import TUMOUR_GLAND, Tissue
from napari_kdseg.synthetic.scanner import label_picture, macro_picture
from napari_kdseg.synthetic.staining import Stain

LOOK = 2
"""Raised when the same address gives other pixels than before, so that no result of the old ones is taken for new."""


class SyntheticSlide:
    """Compute pixels from their coordinates; coarser levels are computed directly, not from finer ones.

    Parameters
    ----------
    shape
        Pixels (height, width) of level 0.
    look
        Seed, scale, and what it looks like.
    mask
        What :meth:`sample_classes` tells, one of :data:`~napari_kdseg.synthetic.address.MASKS`.
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

    @classmethod
    def parse(cls, address: str) -> Self:
        """Make the slide that a ``synthetic:`` address names.

        Raises
        ------
        SlideError
            If it names none.
        """
        shape, look, mask = parse_address(address)
        return cls(shape, look, mask=mask)

    def address(self, mask: str | None = None) -> str:
        """Return the address that names this slide, with this or another of its masks."""
        return format_address(self.shape, self.look, mask or self.mask)

    @property
    def fingerprint(self) -> str:
        """Identity of the pixels."""
        identity = f"{LOOK} {self.shape} {self.look}"
        return SCHEME + hashlib.blake2b(identity.encode(), digest_size=20).hexdigest()

    def read(
        self, downsample: tuple[float, float], top: int, left: int, height: int, width: int
    ) -> np.ndarray:
        """Compute a region as a perfect scanner would take it, uint8 ``[height, width, 3]``.

        Parameters
        ----------
        downsample
            Width of one pixel in level-0 pixels, (y, x).
        top, left, height, width
            The region, in pixels of that downsample.
        """
        pixel = max(downsample) * self.look.mpp

        def positions(margin: int) -> tuple[np.ndarray, np.ndarray]:
            rows = np.arange(top - margin, top + height + margin)
            columns = np.arange(left - margin, left + width + margin)
            return (
                (rows + 0.5) * downsample[0] * self.look.mpp,
                (columns + 0.5) * downsample[1] * self.look.mpp,
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
        return pixels if self._pen is None else self._pen.draw(y, x, pixels)

    def label(self) -> np.ndarray:
        """Draw its paper label, uint8 ``[h, w, 3]``."""
        look = self.look
        lines = ("synthetic", f"seed {look.seed}, stain {look.stain}", f"{look.mpp:g} um")
        return label_picture(lines, look.seed)

    def macro(self, overview: np.ndarray) -> np.ndarray:
        """Draw the whole glass slide, its tissue as in the small picture ``overview``, uint8 ``[h, w, 3]``."""
        return macro_picture(overview, self.label())

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
