"""What a review reads from disk, off the GUI thread: what was said before, and pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_kdseg.comparison.regions.table import RegionTable
from napari_kdseg.comparison.review.file import Review, open_review
from napari_kdseg.errors import KdsegError
from napari_kdseg.slides import Slide
from napari_kdseg.widgets.review.arrangement import Wish, arrange, pairs_of, verdicts
from napari_kdseg.widgets.review.crops import MaskPanel, crops


@dataclass(frozen=True)
class Opened:
    """What is found before regions are shown.

    Attributes
    ----------
    review, problem
        What was said of them; or ``None``, and why it cannot be read.
    said, pairs, listed
        Verdicts by number, pairs of classes, and the regions in their first order.
    """

    review: Review | None
    problem: str
    said: np.ndarray
    pairs: list[tuple[int, int]]
    listed: RegionTable


def open_regions(folder: Path, slide: Slide, table: RegionTable) -> Opened:
    """Find what was said of regions; where that cannot be read they can be looked at all the same.

    Parameters
    ----------
    folder
        Of all reviews.
    slide, table
        Which regions.
    """
    review, problem = None, ""
    try:
        review = open_review(folder, slide.name, slide.identity(), table)
    except KdsegError as error:
        problem = str(error)
    said = verdicts(table, {} if review is None else review.marks.regions())
    return Opened(review, problem, said, pairs_of(table), arrange(table, Wish(), said))


def read_crops(slide: Slide, masks: tuple[MaskPanel, ...], table: RegionTable, number: int) -> np.ndarray:
    """Read the crops of the region of this number."""
    index = table.index_of(number)
    assert index is not None
    return crops(slide, masks, table.at(index))
