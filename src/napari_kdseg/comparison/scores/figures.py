"""Counts of one tile, as arrays that add up to those of the slide, and as the few numbers that a journal keeps of them.

Keys are ``"<first>/<second>:<what>"`` for two masks and ``"<role>:<what>"`` for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Figures = dict[str, np.ndarray]


def add_figures(many: Iterable[Figures]) -> Figures:
    """Add up figures key by key."""
    total: Figures = {}
    for figures in many:
        for key, counts in figures.items():
            total[key] = total[key] + counts if key in total else counts.copy()
    return total


def as_note(figures: Figures) -> dict[str, Any]:
    """Return figures as JSON that leaves out zeros."""
    note = {}
    for key, counts in figures.items():
        flat = counts.ravel()
        where = np.flatnonzero(flat)
        note[key] = {"shape": counts.shape, "at": where.tolist(), "counts": flat[where].tolist()}
    return note


def from_note(note: Mapping[str, Any]) -> Figures:
    """Return what :func:`as_note` wrote."""
    figures = {}
    for key, kept in note.items():
        counts = np.zeros(int(np.prod(kept["shape"])), np.int64)
        counts[np.asarray(kept["at"], np.intp)] = kept["counts"]
        figures[key] = counts.reshape(kept["shape"])
    return figures


def pair_key(first: str, second: str, what: str) -> str:
    """Return the key of what was counted of two masks."""
    return f"{first}/{second}:{what}"


def mask_key(role: str, what: str) -> str:
    """Return the key of what was counted of one mask."""
    return f"{role}:{what}"
