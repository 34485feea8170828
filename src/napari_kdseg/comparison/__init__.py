"""Masks of one slide against each other, and the correction of a teacher's soft label on it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from napari_kdseg.comparison.config import CorrectConfig

if TYPE_CHECKING:
    from napari_kdseg.comparison.agreement import (
        Confusion,
        confusion,
        disagreement,
        disagreement_levels,
    )
    from napari_kdseg.comparison.correction import STAGES, CorrectResult, correct
    from napari_kdseg.comparison.lazy import LazyPyramid, change_levels, probability_levels
    from napari_kdseg.comparison.summary import ComparisonSummary, summarise

_HOMES = {
    "STAGES": "correction",
    "ComparisonSummary": "summary",
    "Confusion": "agreement",
    "CorrectResult": "correction",
    "LazyPyramid": "lazy",
    "change_levels": "lazy",
    "confusion": "agreement",
    "correct": "correction",
    "disagreement": "agreement",
    "disagreement_levels": "agreement",
    "probability_levels": "lazy",
    "summarise": "summary",
}

__all__ = [
    "STAGES",
    "ComparisonSummary",
    "Confusion",
    "CorrectConfig",
    "CorrectResult",
    "LazyPyramid",
    "change_levels",
    "confusion",
    "correct",
    "disagreement",
    "disagreement_levels",
    "probability_levels",
    "summarise",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
