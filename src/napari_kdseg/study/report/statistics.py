"""Mean and spread over seeds, and paired tests over the test tiles with a correction for many comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean, and the standard deviation of a sample (NaN for a single value)."""
    known = np.array([value for value in values if not math.isnan(value)], np.float64)
    if not len(known):
        return math.nan, math.nan
    return float(known.mean()), float(known.std(ddof=1)) if len(known) > 1 else math.nan


def over_seeds(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average the Dice of each tile over the seeds; tiles of which some seed says nothing are left out."""
    shared = set.intersection(*(set(one) for one in scores)) if scores else set()
    means = {tile: sum(one[tile] for one in scores) / len(scores) for tile in sorted(shared)}
    return {tile: value for tile, value in means.items() if not math.isnan(value)}


@dataclass(frozen=True)
class Paired:
    """A paired comparison over test tiles.

    Attributes
    ----------
    tiles
        How many tiles were compared.
    difference
        Mean difference of their Dice.
    better
        Share of the tiles that are better, among those that differ.
    p
        Of the two-sided Wilcoxon signed-rank test; 1 where nothing differs.
    """

    tiles: int
    difference: float
    better: float
    p: float


def compare(one: Mapping[str, float], other: Mapping[str, float]) -> Paired:
    """Compare the Dice of the same tiles under two methods."""
    shared = [tile for tile in one if tile in other]
    differences = np.array([one[tile] - other[tile] for tile in shared])
    changed = differences[differences != 0]
    if not len(changed):
        return Paired(len(shared), 0.0, math.nan, 1.0)
    p = float(wilcoxon(changed, method="approx").pvalue)
    return Paired(len(shared), float(differences.mean()), float((changed > 0).mean()), p)


def holm(values: Sequence[float]) -> list[float]:
    """Adjust p values of one family of tests for their number (Holm, Scand. J. Stat. 1979)."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted
