"""Classes on a slide, on the coordinates of the slide, whatever they were drawn or computed with.

Everything follows from one function, the class at given positions: levels, regions at any downsample, nearest
neighbour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from napari_kdseg.slides.annotations.classes import NOT_ANNOTATED, class_colours
from napari_kdseg.slides.annotations.model import Colour
from napari_kdseg.slides.geometry import Pair, as_pair
from napari_kdseg.slides.pixels.level_array import LevelArray
from napari_kdseg.slides.readers.backend import Level, make_level

COARSEST = 1024
BLOCK = 512
Sampler = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Annotation:
    """Classes on a slide; 0 is background, 255 is not annotated, which is also what lies outside the slide.

    Parameters
    ----------
    sample
        ``sample(rows, columns) -> uint8 [len(rows), len(columns)]``: the class at positions in level-0 pixels counted
        from the corner of the slide.
    slide_shape
        Pixels (height, width) of level 0 of the slide.
    shape
        Pixels (height, width) of the annotation at its finest.
    classes
        Their names; class 0 is background.
    source
        Where it comes from.
    colours
        (r, g, b) of the classes, background first; classes without get one of Okabe and Ito's.
    """

    def __init__(
        self,
        sample: Sampler,
        slide_shape: tuple[int, int],
        shape: tuple[int, int],
        classes: tuple[str, ...],
        source: str = "array",
        colours: Sequence[Colour] = (),
    ):
        self._sample = sample
        self._slide_shape = slide_shape
        self.source = source
        self.notes: tuple[str, ...] = ()  # what was decided on reading a file of outlines
        self.colours: tuple[Colour, ...] = tuple(colours)
        self.name_classes(classes)
        self.pyramid: tuple[Level, ...] = _pyramid(slide_shape, shape)
        self.levels = [
            LevelArray(partial(self.read_scaled, level.downsample), level.shape, np.uint8, level.tile)
            for level in self.pyramid
        ]

    def __repr__(self) -> str:
        return f"Annotation({self.source!r}, classes={self.classes}, downsample={self.downsample})"

    def name_classes(self, classes: Sequence[str]) -> None:
        """Give the classes other names, background first."""
        self.classes = tuple(classes)
        self.colours += class_colours(len(classes))[len(self.colours) :]

    @property
    def downsample(self) -> Pair:
        """Width of a pixel of ``levels[0]`` in level-0 pixels of the slide, (y, x)."""
        return self.pyramid[0].downsample

    def read_scaled(self, downsample: float | Pair, y: int, x: int, height: int, width: int) -> np.ndarray:
        """Read a region of an imaginary level: the class at the centre of each of its pixels.

        Parameters
        ----------
        downsample
            Width of one pixel in level-0 pixels of the slide, one number or (y, x).
        y, x, height, width
            The region, in pixels of the imaginary level.

        Returns
        -------
        np.ndarray
            uint8 ``[height, width]``.
        """
        factor = as_pair(downsample)
        rows = (np.arange(y, y + height) + 0.5) * factor[0]
        columns = (np.arange(x, x + width) + 0.5) * factor[1]
        out = np.full((height, width), NOT_ANNOTATED, np.uint8)
        down = (rows >= 0) & (rows < self._slide_shape[0])
        across = (columns >= 0) & (columns < self._slide_shape[1])
        if down.any() and across.any():
            out[np.ix_(down, across)] = self._sample(rows[down], columns[across])
        return out


def _pyramid(slide_shape: tuple[int, int], shape: tuple[int, int]) -> tuple[Level, ...]:
    """Halve from ``shape`` until the coarsest level is small."""
    levels = [make_level(shape, slide_shape, (BLOCK, BLOCK))]
    while max(levels[-1].shape) > COARSEST:
        height, width = levels[-1].shape
        levels.append(make_level((math.ceil(height / 2), math.ceil(width / 2)), slide_shape, (BLOCK, BLOCK)))
    return tuple(levels)
