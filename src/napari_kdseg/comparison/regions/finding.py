"""The regions of a comparison, found in one pass over the slide: tile by tile, strip by strip from the top.

What is read of a tile: where the two masks differ; their classes; their probabilities if they were kept; and around it
as many pixels as depths are measured up to. A tile without disagreement is not looked at further.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from napari_kdseg.comparison.compared.together import Together
from napari_kdseg.comparison.regions.components import Components
from napari_kdseg.comparison.regions.runs import Parts, Runs, in_reading_order, no_runs, runs_of, together
from napari_kdseg.comparison.regions.table import COLUMNS, Compared, RegionTable
from napari_kdseg.comparison.scores.counting import CODES, VALUES, differing, disagreement_codes
from napari_kdseg.comparison.scores.distances import squared_distances, squared_distances_at
from napari_kdseg.masks.reduction import NOT_COMPUTED
from napari_kdseg.slides.pixels.read_ahead import read_ahead

#: Depths are exact up to this many pixels of the grid.
DEEPEST = 64
TILE = 2048
#: Up to this share of disagreeing pixels, their depths are looked up one by one.
FEW = 1 / 20
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class DisagreementBlock:
    """A block with what regions are made of.

    Attributes
    ----------
    codes
        uint8 ``[h + 2 m, w + 2 m]``, with a margin of ``m`` pixels: 0 they agree, 1 to 3 they do not, 255 not known.
    first, second
        Their classes without the margin, uint8 ``[h, w]``.
    gap
        int16 ``[h, w]``, -1 where it is not known; ``None`` without probabilities.
    """

    codes: np.ndarray
    first: np.ndarray
    second: np.ndarray
    gap: np.ndarray | None


#: ``read(y, x, height, width, margin)`` gives a block of the grid; ``None`` where the two agree.
ReadBlock = Callable[[int, int, int, int, int], DisagreementBlock | None]


def find_regions(
    read: ReadBlock,
    area: Box,
    about: Compared,
    *,
    tile: int = TILE,
    depth: int = DEEPEST,
    step: Callable[[int, int], None] | None = None,
) -> RegionTable:
    """Find the regions at which two masks differ.

    Parameters
    ----------
    read
        Where they differ, see :func:`from_masks`.
    area
        ``(y, x, height, width)`` of the grid: what lies outside of it is not looked at, and cuts regions.
    about
        What the table is about.
    tile
        Side of the blocks that are read; the table does not depend on it.
    depth
        Up to how many pixels of the grid depths are measured; 0 leaves them out.
    step
        ``step(done, total)``, called after every block; an exception it raises ends the search.

    Returns
    -------
    RegionTable
        By number.
    """
    top, left, height, width = area
    components = Components(left + width)
    rows, columns = range(top, top + height, tile), range(left, left + width, tile)
    boxes = [
        (y, x, min(tile, top + height - y), min(tile, left + width - x), depth) for y in rows for x in columns
    ]
    finished = []
    strip: list[Runs] = []
    with contextlib.closing(read_ahead(lambda box: read(*box), boxes, 1)) as blocks:
        for done, ((y, x, tall, wide, _), block) in enumerate(blocks, start=1):
            strip.append(no_runs() if block is None else _runs(block, (y, x), depth))
            if x + wide == left + width:
                finished.append(components.add(in_reading_order(strip), y + tall))
                strip = []
            if step is not None:
                step(done, len(boxes))
    finished.append(components.finish())
    return RegionTable(_as_rows(together(finished), about, depth), about)


def from_masks(masks: Together, codes: Callable[[int, int, int, int], np.ndarray] | None = None) -> ReadBlock:
    """Return what reads the disagreement of the mapped pair.

    Parameters
    ----------
    masks
        The masks.
    codes
        ``codes(y, x, height, width)`` reads the map of their disagreement, 255 beyond the slide, if there is one.
        Without it the two are compared once more.
    """
    first, second = (mask.role for mask in masks.pair)

    def compare(y: int, x: int, height: int, width: int) -> np.ndarray:
        blocks = masks.read(y, x, height, width)
        return disagreement_codes(blocks[first], differing(blocks[first], blocks[second]))

    look = codes or compare

    def read(y: int, x: int, height: int, width: int, margin: int) -> DisagreementBlock | None:
        seen = look(y - margin, x - margin, height + 2 * margin, width + 2 * margin)
        core = seen[margin : margin + height, margin : margin + width]
        if not _disagree(core).any():
            return None
        blocks = masks.read(y, x, height, width)
        return DisagreementBlock(seen, blocks[first], blocks[second], masks.read_gap(y, x, height, width))

    return read


def _disagree(codes: np.ndarray) -> np.ndarray:
    """Where the two masks are known to differ: from 1 to 254, in one comparison of numbers that wrap around."""
    return (codes - np.uint8(1)) < np.uint8(NOT_COMPUTED - 1)


def _runs(block: DisagreementBlock, corner: tuple[int, int], depth: int) -> Runs:
    height, width = block.first.shape
    margin = (block.codes.shape[0] - height) // 2
    core = (slice(margin, margin + height), slice(margin, margin + width))
    where = np.flatnonzero(_disagree(block.codes[core]))
    pairs = block.first.ravel()[where].astype(np.uint16) * np.uint16(VALUES) + block.second.ravel()[where]
    return runs_of(
        where,
        pairs,
        width,
        corner=corner,
        gap=None if block.gap is None else block.gap.ravel()[where],
        depth=_depths(block.codes, core, depth) if depth else None,
    )


def _depths(codes: np.ndarray, core: tuple[slice, slice], depth: int) -> np.ndarray:
    """Return the squared distance of the disagreeing pixels of a core to the nearest pixel that is none."""
    inside = _disagree(codes)
    wanted = np.zeros(codes.shape, bool)
    wanted[core] = inside[core]
    if np.count_nonzero(wanted) > FEW * codes.size:
        return np.minimum(squared_distances(~inside, depth)[wanted], depth**2)
    # The nearest of them all touches a disagreeing pixel, or something nearer would.
    around = np.zeros(codes.shape, bool)
    around[1:] |= inside[:-1]
    around[:-1] |= inside[1:]
    around[:, 1:] |= inside[:, :-1]
    around[:, :-1] |= inside[:, 1:]
    seeds = np.flatnonzero(around & ~inside)
    squared = squared_distances_at(np.flatnonzero(wanted), seeds, codes.shape[1], depth)
    return np.minimum(squared, depth**2)


def _as_rows(parts: Parts, about: Compared, depth: int) -> np.ndarray:
    """Number components in reading order, and put them into micrometres and level-0 pixels."""
    parts = parts.take(np.lexsort((parts.first_x, parts.first_y)))
    rows = np.zeros(len(parts), COLUMNS)
    down, across = about.downsample
    first, second = np.divmod(parts.code, VALUES)
    rows["region"] = np.arange(len(parts))
    rows["kind"] = CODES[first, second]
    rows["first_class"], rows["second_class"] = first, second
    rows["area_px"] = parts.area
    for start, stop, factor in (("y0", "y1", down), ("x0", "x1", across)):
        rows[start] = np.floor(getattr(parts, start) * factor + 1e-6)
        rows[stop] = np.ceil(getattr(parts, stop) * factor - 1e-6)
    rows["centre_y"] = (parts.sum_y / parts.area + 0.5) * down - 0.5
    rows["centre_x"] = (parts.twice_sum_x / (2 * parts.area) + 0.5) * across - 0.5
    rows["inside_y"] = np.floor((parts.long_y + 0.5) * down)
    rows["inside_x"] = np.floor((parts.long_x + parts.long // 2 + 0.5) * across)
    with np.errstate(invalid="ignore"):
        rows["gap"] = parts.gap / parts.known / (NOT_COMPUTED - 1)
    pixel = math.sqrt(down * across)
    rows["depth_px"] = np.sqrt(parts.deepest) * pixel if depth else np.nan
    scale = math.nan if about.mpp is None else math.sqrt(math.prod(about.mpp))
    rows["depth_um"] = rows["depth_px"] * scale
    rows["area_mm2"] = parts.area * (down * across) * scale**2 / 1e6
    return rows
