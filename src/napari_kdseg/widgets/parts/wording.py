"""Figures in the words that people use."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Put seconds into words of the size people use."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
