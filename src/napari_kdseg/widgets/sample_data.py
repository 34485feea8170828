"""Slides to try everything on, computed tile by tile where they are looked at: nothing is downloaded."""

from __future__ import annotations

from napari_kdseg.synthetic.address import SCHEME
from napari_kdseg.widgets.layers.placement import LayerTuple
from napari_kdseg.widgets.reader import read_slide

ADDRESS = f"{SCHEME}100000x80000?seed=0&mpp=0.25"
SMALL = f"{SCHEME}12000x9000?seed=7&mpp=0.5&stain=2"


def synthetic_slide() -> list[LayerTuple]:
    """A gigapixel H&E-like slide."""
    return read_slide(ADDRESS)


def small_synthetic_slide() -> list[LayerTuple]:
    """One piece of such tissue, scanned at 20x in another laboratory."""
    return read_slide(SMALL)


def annotated_synthetic_slide() -> list[LayerTuple]:
    """The same slide with the exact outlines of its glands."""
    return read_slide(ADDRESS, ADDRESS)
