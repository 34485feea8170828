"""One mask that is compared: where its pixels come from, which role it plays, and which of its classes is which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from napari_kdseg.masks.pyramid import MaskPyramid
from napari_kdseg.masks.reduction import NOT_COMPUTED

Pair = tuple[float, float]
Role = Literal["teacher", "student", "corrected", "reference"]
ROLES: tuple[Role, ...] = get_args(Role)
ReadScaled = Callable[[Pair, int, int, int, int], np.ndarray]


@dataclass(frozen=True)
class ComparedMask:
    """A mask of a slide in a comparison.

    Attributes
    ----------
    role
        What it is in the comparison.
    name
        For people: of the mask in its store, or of its file.
    classes, colours
        Its own classes, background first, and their ``(r, g, b)``.
    read_own
        ``read_own(downsample, y, x, height, width)`` gives its own classes on an imaginary level, uint8, 255 where it
        says nothing and beyond the slide.
    downsample
        ``(y, x)`` of its pixels against level 0; ``None`` for outlines, which have no pixels.
    made_by
        What tells it from other masks, as JSON: what made it, or the hash of its file.
    mapping
        Which common class each of its own classes is; 255 leaves one out. Own classes that it does not name stay what
        they are.
    probabilities
        Of the class it predicted, if they were kept.
    store
        The mask store it lies in, if it does.
    notes
        Sentences to show: where it was put, how its classes were understood, that it still grows.
    """

    role: Role
    name: str
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    read_own: ReadScaled
    downsample: Pair | None
    made_by: dict[str, Any]
    mapping: Mapping[int, int] = field(default_factory=dict)
    probabilities: MaskPyramid | None = None
    store: Path | None = None
    notes: tuple[str, ...] = ()

    def read(self, downsample: Pair, y: int, x: int, height: int, width: int) -> np.ndarray:
        """Read common classes on an imaginary level, uint8 ``[height, width]``; 255 is not known."""
        block = self.read_own(downsample, y, x, height, width)
        table = self._table
        return block if table is None else table[block]

    def read_probability(
        self, downsample: Pair, y: int, x: int, height: int, width: int
    ) -> np.ndarray | None:
        """Read the stored probability of what :meth:`read` gives, uint8; ``None`` if none was kept."""
        if self.probabilities is None:
            return None
        return self.probabilities.read_scaled(downsample, y, x, height, width)

    def mapped(self, mapping: Mapping[int, int], *notes: str) -> ComparedMask:
        """Return the same mask with another map of its classes."""
        return replace(self, mapping=dict(mapping), notes=(*self.notes, *notes))

    @property
    def _table(self) -> np.ndarray | None:
        """The common class of each value, uint8 ``[256]``; ``None`` where all stay what they are."""
        if all(own == common for own, common in self.mapping.items()):
            return None
        table = np.arange(256, dtype=np.uint8)
        for own, common in self.mapping.items():
            table[own] = common
        table[NOT_COMPUTED] = NOT_COMPUTED
        return table
