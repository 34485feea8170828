"""All that is counted of one tile: noted in the journal of the map, and counted anew for a region that cuts it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from napari_kdseg.codes import Difference
from napari_kdseg.comparison.scores.bands import band_counts, band_edges, band_reach, bands_of
from napari_kdseg.comparison.scores.calibration import calibration_counts
from napari_kdseg.comparison.scores.contours import contour_counts
from napari_kdseg.comparison.scores.counting import (
    Differing,
    confusion_counts,
    differing,
    disagreement_codes,
)
from napari_kdseg.comparison.scores.distances import LONGEST_REACH, class_borders, squared_distances_at
from napari_kdseg.comparison.scores.figures import Figures, pair_key
from napari_kdseg.errors import ConfigurationError

Core = tuple[slice, slice]
#: Contours are followed at least this many pixels of the grid.
REACH = 64


@dataclass(frozen=True)
class Counter:
    """Counts tiles of a comparison.

    Attributes
    ----------
    classes
        The common classes.
    pairs
        Roles of the masks that are counted against each other; the first pair is the one that is mapped.
    spacing
        Width of a pixel of the grid, in micrometres or, without a scale, 1.
    beyond
        Disagreement at which both masks have a border as near as this, in the unit of ``spacing``, is left out of the
        map.
    tolerance
        Up to which contours will be compared, in the unit of ``spacing``.
    full
        Count contours, bands and calibration too.
    """

    classes: tuple[str, ...]
    pairs: Sequence[tuple[str, str]]
    spacing: float
    beyond: float = 0.0
    tolerance: float = 0.0
    full: bool = True

    def __post_init__(self) -> None:
        asked = max(self.beyond, self.tolerance if self.full else 0.0)
        if math.ceil(asked / self.spacing) > LONGEST_REACH:
            raise ConfigurationError(
                f"{asked:g} µm are more than {LONGEST_REACH} pixels of the grid that is compared on. Ask for less, or "
                "compare at a coarser resolution."
            )

    @property
    def reach(self) -> int:
        """How many pixels contours are followed."""
        return max(REACH, math.ceil(self.tolerance / self.spacing))

    @property
    def margin(self) -> int:
        """How many pixels around a tile are read with it."""
        if self.full:
            return max(self.reach, band_reach(self.spacing), self._near) + 1
        return self._near + 1 if self.beyond else 0

    @property
    def _near(self) -> int:
        return math.ceil(self.beyond / self.spacing)

    def made_by(self) -> dict[str, object]:
        """Return what the counts depend on, as JSON."""
        return {
            "beyond": self.beyond,
            "reach": self.reach if self.full else 0,
            "bands": band_edges(self.spacing),
        }

    def count(
        self, blocks: Mapping[str, np.ndarray], probabilities: Mapping[str, np.ndarray], core: Core
    ) -> tuple[np.ndarray, Figures]:
        """Count one tile.

        Parameters
        ----------
        blocks
            By role: classes of the tile and :attr:`margin` around it, uint8, 255 beyond the slide.
        probabilities
            By role, of masks that kept them: stored probabilities of the tile alone.
        core
            The tile in its blocks.

        Returns
        -------
        codes, figures
            The map of the first pair, uint8 ``[h, w]``, and the counts.
        """
        figures: Figures = {}
        codes = None
        bands: dict[str, np.ndarray] = {}
        for first, second in self.pairs:
            ours, theirs = (np.ascontiguousarray(blocks[role][core]) for role in (first, second))
            pixels = differing(ours, theirs)
            figures[pair_key(first, second, "confusion")] = confusion_counts(ours, pixels, self.classes)
            if codes is None:
                codes = disagreement_codes(ours, pixels)
                left_out = self._leave_out(codes, blocks[first], blocks[second], core, pixels)
                if left_out is not None:
                    figures[pair_key(first, second, "left_out")] = left_out
            if self.full:
                if first not in bands:
                    bands[first] = bands_of(blocks[first], self.spacing)[core]
                number = len(band_edges(self.spacing)) + 1
                counts = band_counts(bands[first], ours, theirs, len(self.classes), number)
                figures[pair_key(first, second, "bands")] = counts
                figures[pair_key(first, second, "contours")] = contour_counts(
                    blocks[first], blocks[second], core, len(self.classes), self.reach
                )
                if second in probabilities:
                    counts = calibration_counts(ours, theirs, probabilities[second])
                    figures[pair_key(first, second, "calibration")] = counts
        assert codes is not None
        return codes, figures

    def _leave_out(
        self, codes: np.ndarray, first: np.ndarray, second: np.ndarray, core: Core, pixels: Differing
    ) -> np.ndarray | None:
        """Call agreement what lies at a border of both masks; return how many pixels of each pair that were."""
        count = len(self.classes)
        if not self.beyond:
            return None
        known = pixels.codes <= Difference.DIFFERENT_CLASS
        where = pixels.where[known]
        row, column = np.divmod(where, codes.shape[1])
        width = first.shape[1]
        points = (row + core[0].start) * width + column + core[1].start
        near = np.ones(len(points), bool)
        for mask in (first, second):
            seeds = np.flatnonzero(class_borders(mask))
            squared = squared_distances_at(points, seeds, width, self._near)
            near &= squared <= math.floor((self.beyond / self.spacing) ** 2 * (1 + 1e-9))
        codes.ravel()[where[near]] = Difference.AGREE
        pairs = pixels.first[known][near].astype(np.intp) * count + pixels.second[known][near]
        return np.bincount(pairs, minlength=count**2).reshape(count, count)
