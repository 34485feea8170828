"""Which of the pictures in a file is the slide: the one rule for every container.

The slide is the largest full-resolution picture, wherever it stands; labels, macros and thumbnails come after all
others. A person may choose another (``slide.ome.tif?series=1``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from napari_kdseg.errors import SlideError

Content = TypeVar("Content")
Item = TypeVar("Item")
Shape = tuple[int, int]

BESIDE = re.compile(r"(?<![a-z])(label|macro|thumbnail|overview|preview|barcode)(?![a-z])", re.IGNORECASE)
"""Names of pictures that are not the slide itself."""


@dataclass(frozen=True)
class Picture(Generic[Content]):
    """One picture of a file.

    Attributes
    ----------
    shape
        Pixels (height, width) of its finest level.
    content
        What the reader knows it by.
    name
        As the file calls it; may be empty.
    """

    shape: Shape
    content: Content
    name: str = ""

    @property
    def title(self) -> str:
        """Its name and size, for people."""
        size = f"{self.shape[1]:,} x {self.shape[0]:,}"
        return f"{self.name}, {size}" if self.name else size


def choose_picture(pictures: Sequence[Picture[Content]], series: int | None) -> int:
    """Return the index of the picture that is the slide.

    Raises
    ------
    SlideError
        If the series that was asked for is not there.
    """
    if series is None:
        return largest(pictures)
    if series > len(pictures):
        many = f"are only {len(pictures)}" if len(pictures) > 1 else "is only one"
        raise SlideError(f"There is no series {series} in this file: there {many}, counted from 1.")
    return series - 1


def largest(pictures: Sequence[Picture[Content]]) -> int:
    """Return the index of the picture with most pixels, the first of equals; what is called a label comes last."""

    def rank(index: int) -> tuple[bool, int, int]:
        picture = pictures[index]
        return BESIDE.search(picture.name) is None, picture.shape[0] * picture.shape[1], -index

    return max(range(len(pictures)), key=rank)


def in_words(pictures: Sequence[Picture[Content]], chosen: int) -> str:
    """Say which picture is the slide, and how another is had; empty where there is only one."""
    if len(pictures) == 1:
        return ""
    best = largest(pictures)
    why = "the largest" if chosen == best else f"chosen; the largest is series {best + 1}"
    others = "; ".join(f"{index + 1}: {each.title}" for index, each in enumerate(pictures) if index != chosen)
    return f"series {chosen + 1} of {len(pictures)} ({why}): {pictures[chosen].title}. Others, by ?series=: {others}"


def fine_to_coarse(levels: Sequence[Item], shape: Callable[[Item], Shape]) -> list[Item]:
    """Return levels from the one of most pixels to that of fewest, in whatever order they are stored."""
    return sorted(levels, key=lambda level: -shape(level)[0] * shape(level)[1])


def is_level_of(shape: Shape, full: Shape) -> bool:
    """Tell by its size whether a picture may be another at a lower resolution: the same sides, as sizes are rounded."""
    factors = (full[0] / shape[0], full[1] / shape[1])
    slack = 1 + 2 / min(shape)
    return min(factors) > 1 and max(factors) / min(factors) < slack
