"""Any part of a comparison, counted: what the whole slide is made of, and what is asked of a view or a drawn region.

Nothing is written here. A tile takes tenths of a second; a region takes as many tiles as it covers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from napari_kdseg.comparison.compared.class_mapping import read_classes
from napari_kdseg.comparison.compared.mask import ROLES, ComparedMask, Role
from napari_kdseg.comparison.compared.opening import Source, open_compared
from napari_kdseg.comparison.compared.together import Together, put_together
from napari_kdseg.comparison.config import CompareConfig
from napari_kdseg.comparison.regions.finding import DEEPEST
from napari_kdseg.comparison.regions.table import Compared
from napari_kdseg.comparison.scores.figures import Figures, add_figures
from napari_kdseg.comparison.scores.table import PairScores, pair_scores
from napari_kdseg.comparison.scores.tile import Counter
from napari_kdseg.errors import ConfigurationError
from napari_kdseg.jobs import Control
from napari_kdseg.masks.tiling import to_mask_region
from napari_kdseg.slides import Slide

TILE = 2048
Box = tuple[int, int, int, int]


def open_together(
    config: CompareConfig, slide: Slide, given: Mapping[Role, Source] | None = None
) -> Together:
    """Open the masks of a comparison and lay them on one grid.

    Raises
    ------
    KdsegError
        If they cannot be read, lie on another slide, or contradict each other.
    """
    sources: dict[Any, Source] = {**config.masks, **(given or {})}
    order = [role for role in ROLES if role in sources]
    if len(order) < 2:
        raise ConfigurationError(
            "A comparison takes two masks or more: give a teacher and a student, for instance."
        )
    opened = [open_compared(sources[role], slide, role=role, bounds=config.bounds) for role in order]
    return put_together(
        opened,
        slide,
        said=read_classes(config.classes),
        mpp=config.mpp,
        within=_within(config, slide),
        annotated=config.annotated,
    )


def _within(config: CompareConfig, slide: Slide) -> ComparedMask | None:
    if config.within is None:
        return None
    return open_compared(config.within, slide, role="reference", bounds=config.bounds)


def counter_of(masks: Together, config: CompareConfig) -> Counter:
    """Return what counts the tiles of a comparison."""
    pairs = [(first.role, second.role) for first, second in masks.pairs]
    return Counter(masks.classes, pairs, masks.spacing, config.beyond, config.tolerance, config.scores)


def area_of(masks: Together, config: CompareConfig) -> Box | None:
    """Return the region of a comparison in pixels of its grid, cut at the slide; ``None`` is all of it."""
    if config.region is None:
        return None
    y, x, height, width = to_mask_region(config.region, masks.downsample)
    top, left = max(0, y), max(0, x)
    bottom, right = min(masks.shape[0], y + height), min(masks.shape[1], x + width)
    if bottom <= top or right <= left:
        raise ConfigurationError("The region lies outside the slide. Choose one that overlaps it.")
    return top, left, bottom - top, right - left


def count_area(masks: Together, counter: Counter, area: Box) -> tuple[np.ndarray, Figures]:
    """Count a rectangle of the grid, at most a tile large, at once.

    Returns
    -------
    codes, figures
        As :meth:`~napari_kdseg.comparison.scores.tile.Counter.count`.
    """
    y, x, height, width = area
    margin = counter.margin
    window = (y - margin, x - margin, height + 2 * margin, width + 2 * margin)
    blocks = masks.read(*window)
    stored: dict[str, np.ndarray] = {}
    if counter.full:
        read = {mask.role: mask.read_probability(masks.downsample, *area) for mask in masks.masks}
        stored = {role: values for role, values in read.items() if values is not None}
    return counter.count(blocks, stored, (slice(margin, margin + height), slice(margin, margin + width)))


def count_region(
    masks: Together, counter: Counter, area: Box, check: Control | None = None, tile: int = TILE
) -> Figures:
    """Count a rectangle of the grid of any size, tile by tile, without writing anything.

    Parameters
    ----------
    masks, counter
        What is counted.
    area
        ``(y, x, height, width)`` in pixels of the grid.
    check
        Pause and cancel.
    tile
        Side of what is counted at once; the counts do not depend on it.
    """
    top, left, height, width = area
    counted = []
    for y in range(top, top + height, tile):
        for x in range(left, left + width, tile):
            if check is not None:
                check.check()
            box = (y, x, min(tile, top + height - y), min(tile, left + width - x))
            counted.append(count_area(masks, counter, box)[1])
    return add_figures(counted)


def about_of(masks: Together, recipe: Mapping[str, Any] | None = None) -> Compared:
    """Return what a table of the regions of the mapped pair is about."""
    first, second = (mask.role for mask in masks.pair)
    deepest = DEEPEST * math.sqrt(math.prod(masks.downsample))
    return Compared(
        first, second, masks.classes, masks.downsample, masks.slide_mpp, deepest, dict(recipe or {})
    )


def scores_of(figures: Figures, masks: Together, pair: tuple[str, str], config: CompareConfig) -> PairScores:
    """Read the scores of two masks off counts."""
    return pair_scores(
        figures,
        pair,
        masks.classes,
        spacing=masks.spacing,
        tolerance=config.tolerance,
        pixel_area=1.0 if masks.pixel_mm2 is None else masks.pixel_mm2,
    )


def region_scores(
    masks: Together, config: CompareConfig, area: Box, check: Control | None = None
) -> tuple[PairScores, ...]:
    """Score a rectangle of the grid, as the job scores the slide.

    Parameters
    ----------
    masks, config
        As for the job; ``config.scores`` says whether contours, bands and calibration are counted too.
    area
        ``(y, x, height, width)`` in pixels of the grid.
    check
        Pause and cancel.
    """
    counter = counter_of(masks, config)
    figures = count_region(masks, counter, area, check)
    return tuple(scores_of(figures, masks, pair, config) for pair in counter.pairs)
