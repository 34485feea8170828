"""Masks of one slide against each other, and the correction of a teacher's soft label on it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from napari_kdseg.comparison.config import CorrectConfig

if TYPE_CHECKING:
    from napari_kdseg.comparison.agreement import (
        Confusion,
        LazyPyramid,
        confusion,
        disagreement,
        disagreement_levels,
    )
    from napari_kdseg.comparison.correct import STAGES, CorrectResult, change_levels, correct
    from napari_kdseg.comparison.summary import ComparisonSummary, summarise

_HOMES = {
    "STAGES": "correct",
    "ComparisonSummary": "summary",
    "Confusion": "agreement",
    "CorrectResult": "correct",
    "LazyPyramid": "agreement",
    "change_levels": "correct",
    "confusion": "agreement",
    "correct": "correct",
    "disagreement": "agreement",
    "disagreement_levels": "agreement",
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
    "summarise",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    # Importing the submodule `correct` binds it to this package under the name of its function; put the function back.
    globals()[name] = value
    return value
