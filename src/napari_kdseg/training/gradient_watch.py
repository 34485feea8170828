"""A term whose gradient drowns that of the labels is told once: what the student learns is then that term alone.

Gradients term by term cost a backward pass each. They are looked at in the first, tenth, hundredth ... step of a stage,
and in the step after any whose whole gradient, whose norm clipping gives for nothing, was far longer than that of the
labels had been when last looked at. That is far less than a hundredth of a training's time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from napari_kdseg.distillation.gradients import SEGMENTATION, gradient_norms

DROWNED = 1e4
"""So many times the labels' gradient is told."""

SUSPICIOUS = 1e3
"""After a step whose whole gradient was so many times the labels' last one, the next step is looked at."""


class GradientWatch:
    """Watches the terms of one stage.

    Parameters
    ----------
    told
        Terms that were told before, also by a run that this one goes on with; this list grows.
    """

    def __init__(self, told: list[str]):
        self.told = told
        self._of_labels = math.inf
        self._whole: Tensor | None = None

    def look(
        self, step: int, values: Mapping[str, Tensor], parameters: Iterable[nn.Parameter]
    ) -> dict[str, float]:
        """Return how many times the labels' gradient that of each term is which drowns it and was not told before.

        Parameters
        ----------
        step
            Number of the step in its stage, from 1.
        values
            What :meth:`Stage.loss` returned for it, before its backward pass.
        parameters
            Weights of the network.
        """
        if SEGMENTATION not in values or not (_is_power_of_ten(step) or self._is_suspicious()):
            return {}
        norms = gradient_norms(values, parameters)
        labels = norms.pop(SEGMENTATION)
        if not labels > 0 or not math.isfinite(labels):  # nothing is labelled in this batch
            return {}
        self._of_labels = labels
        found = {
            name: norm / labels
            for name, norm in norms.items()
            if norm > DROWNED * labels and name not in self.told
        }
        self.told.extend(found)
        return found

    def saw(self, whole: Tensor) -> None:
        """Take the norm of a whole gradient, before it is clipped; it is read in the next step, not waited for."""
        self._whole = whole

    def _is_suspicious(self) -> bool:
        return self._whole is not None and float(self._whole) > SUSPICIOUS * self._of_labels


def _is_power_of_ten(number: int) -> bool:
    return number > 0 and 10 ** round(math.log10(number)) == number


def sentence(term: str, times: float, step: int, stage: str) -> str:
    """Say it to people."""
    many = f"{times:,.0f}" if math.isfinite(times) else "infinitely many"
    return (
        f"{stage}, step {step}: the term '{term}' pulls {many} times as hard at the weights as the labels do, so that "
        "the labels are hardly heard. Lower its weight, or look whether the layers it reads suit it; the curves show "
        "each term with its weight."
    )
