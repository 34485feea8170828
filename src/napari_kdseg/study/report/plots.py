"""Plots of a study as SVG, the same bytes from the same figures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure

Scores = Mapping[str, Mapping[float, Sequence[float]]]
"""Test Dice by name of a method and label fraction, one for each seed."""


def curves(scores: Scores, teacher: float | None) -> bytes:
    """Draw mean and standard deviation over the label fractions, a line a method, as SVG."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    colours = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
    for number, (name, by_fraction) in enumerate(scores.items()):
        fractions = sorted(by_fraction)
        means = [sum(by_fraction[f]) / len(by_fraction[f]) for f in fractions]
        spread = [_spread(by_fraction[f]) for f in fractions]
        axes.errorbar(
            [100 * f for f in fractions],
            means,
            spread,
            label=name,
            color=colours[number % 20],
            marker="o",
            capsize=2,
        )
    if teacher is not None:
        axes.axhline(teacher, color="black", linestyle="--", label="teacher")
    axes.set(xscale="log", xlabel="labelled tiles (%)", ylabel="test Dice")
    axes.set_xticks([100 * f for f in sorted({f for one in scores.values() for f in one})])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.legend(fontsize=7, ncols=2)
    return _svg(figure)


def dots(scores: Scores, fraction: float, teacher: float | None) -> bytes:
    """Draw every seed as a dot and the mean as a line, a row a method, as SVG."""
    names = [name for name in scores if fraction in scores[name]]
    figure = Figure(figsize=(8, 1 + 0.32 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    for row, name in enumerate(reversed(names)):
        values = list(scores[name][fraction])
        axes.plot(values, [row] * len(values), "o", color="tab:blue", alpha=0.6)
        axes.plot([sum(values) / len(values)] * 2, [row - 0.3, row + 0.3], color="black")
    if teacher is not None:
        axes.axvline(teacher, color="grey", linestyle="--", label="teacher")
        axes.legend(fontsize=8)
    axes.set(xlabel="test Dice", yticks=range(len(names)), yticklabels=list(reversed(names)))
    axes.grid(axis="x", alpha=0.3)
    return _svg(figure)


def _spread(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return (sum((v - mean) ** 2 for v in values) / max(len(values) - 1, 1)) ** 0.5


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "kdseg", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
