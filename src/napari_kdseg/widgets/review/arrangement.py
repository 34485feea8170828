"""Which regions are listed, and in which order. It knows arrays only, so that 200,000 regions are quick."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_kdseg.codes import Difference
from napari_kdseg.comparison.regions.table import RegionTable
from napari_kdseg.comparison.review.marks import Mark, Verdict

CLASSES, MARK = "classes", "mark"
"""What can be ranked by beside the columns of the table."""
VERDICTS = tuple(Verdict)
ROUNDING = 1e-9
"""Of an area against the number that a person types."""


@dataclass(frozen=True)
class Wish:
    """What a person wants listed.

    Attributes
    ----------
    by, largest_first
        The ranking: a column of the table, :data:`CLASSES` or :data:`MARK`.
    kind, pair
        Only these differences, or this pair of classes by number.
    min_area
        In mm², or pixels where there is no scale.
    unmarked
        Only what has no verdict yet.
    """

    by: str = "area_mm2"
    largest_first: bool = True
    kind: Difference | None = None
    pair: tuple[int, int] | None = None
    min_area: float = 0.0
    unmarked: bool = False


def area_column(table: RegionTable) -> str:
    """Return the column that areas are read from: square millimetres, or pixels without a scale."""
    return "area_px" if table.about.mpp is None else "area_mm2"


def verdicts(table: RegionTable, marks: dict[int, Mark]) -> np.ndarray:
    """Return the index in :data:`VERDICTS` by the number of the region, 0 without one."""
    numbers = table.column("region")
    by_number = np.zeros(int(numbers.max()) + 1 if len(numbers) else 0, np.uint8)
    for number, mark in marks.items():
        by_number[number] = VERDICTS.index(mark.mark)
    return by_number


def pairs_of(table: RegionTable) -> list[tuple[int, int]]:
    """Return the pairs of classes that occur, those with the largest area first."""
    codes = table.column("first_class").astype(np.int64) * 256 + table.column("second_class")
    areas = np.bincount(codes, weights=table.column("area_px"))
    return [divmod(int(code), 256) for code in np.argsort(-areas, kind="stable") if areas[code]]


def arrange(table: RegionTable, wish: Wish, said: np.ndarray) -> RegionTable:
    """Return what is listed, in order.

    Parameters
    ----------
    table
        All regions.
    wish
        What a person wants.
    said
        Of :func:`verdicts`.
    """
    kept = table.filtered(
        kinds=None if wish.kind is None else [wish.kind], pairs=None if wish.pair is None else [wish.pair]
    )
    if wish.min_area:
        kept = kept.where(kept.column(area_column(kept)) >= wish.min_area * (1 - ROUNDING))
    if wish.unmarked:
        kept = kept.where(said[kept.column("region")] == 0)
    if wish.by not in (CLASSES, MARK):
        return kept.ranked(wish.by, largest_first=wish.largest_first)
    if wish.by == CLASSES:
        keys = kept.column("first_class").astype(np.int64) * 256 + kept.column("second_class")
    else:
        keys = said[kept.column("region")].astype(np.int64)
    keys = -keys if wish.largest_first else keys
    return kept.where(np.lexsort((kept.column("region"), -kept.column("area_px"), keys)))
