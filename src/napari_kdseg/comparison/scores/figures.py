"""Counts of one tile, as arrays that add up to those of the slide, and as the few numbers that a journal keeps of them.

Keys are ``"<first>/<second>:<what>"``.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Figures = dict[str, np.ndarray]
#: Up to as many counts are kept as a list.
LISTED = 128


def add_figures(many: Iterable[Figures]) -> Figures:
    """Add up figures key by key."""
    total: Figures = {}
    for figures in many:
        for key, counts in figures.items():
            total[key] = total[key] + counts if key in total else counts.copy()
    return total


def as_note(figures: Figures) -> dict[str, Any]:
    """Return figures as JSON: small ones as lists that can be read, large ones, mostly zeros, compressed."""
    note = {}
    for key, counts in figures.items():
        if counts.size <= LISTED:
            note[key] = {"shape": counts.shape, "counts": counts.ravel().tolist()}
        else:
            content = zlib.compress(np.ascontiguousarray(counts, "<i8").tobytes(), 1)
            note[key] = {"shape": counts.shape, "zlib": base64.b64encode(content).decode()}
    return note


def from_note(note: Mapping[str, Any]) -> Figures:
    """Return what :func:`as_note` wrote."""
    figures = {}
    for key, kept in note.items():
        if "counts" in kept:
            counts = np.array(kept["counts"], np.int64)
        else:
            counts = np.frombuffer(zlib.decompress(base64.b64decode(kept["zlib"])), "<i8").astype(np.int64)
        figures[key] = counts.reshape(kept["shape"])
    return figures


def pair_key(first: str, second: str, what: str) -> str:
    """Return the key of what was counted of two masks."""
    return f"{first}/{second}:{what}"
