"""Tells the user where a term of the loss pulls so hard at the student that the labels no longer count.

The gradient of a step is cut to a length (the setting *Gradient clip*), and Adam divides it by its own size. So a term
whose gradient is ten thousand times that of the labels takes their part of every step away, and nothing in the curves
says so.

What each part pulls costs a backward pass (:func:`~napari_kdseg.distillation.gradients.gradient_norms`). It is looked
at in the first step in which a term counts, in every :data:`INTERVAL`-th step for each term of the loss, and in the
step after one whose whole gradient had grown :data:`JUMP` times since it was looked at last. With one term that is two
backward passes in two hundred steps, less than 1 % of the time. What happens in a single step between is not seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from lightning_fabric import Fabric
from torch import Tensor

from napari_kdseg.distillation import Stage, get_method
from napari_kdseg.distillation.declarations import LABELS, WEIGHTED
from napari_kdseg.distillation.gradients import gradient_norms
from napari_kdseg.distillation.settings import AloneSettings
from napari_kdseg.jobs import Emit, Message
from napari_kdseg.networks import shares
from napari_kdseg.training.config import DistillConfig

LIMIT = 1e4
"""Told is a term whose gradient is more than this many times that of the labels."""

INTERVAL = 200
"""Steps between two looks, for each term there is."""

JUMP = 100.0
"""The step after one whose gradient is so many times as long as that of the last look is looked at, too."""


class GradientWatch:
    """Compares the gradients of a stage's terms with that of its labels; tells of each term once.

    Parameters
    ----------
    stage
        What is trained; one without weighted terms is never looked at.
    config
        Of the run: says which constant to change.
    fabric
        Knows the loss scale of 16 bits.
    emit
        Is told.
    """

    def __init__(self, stage: Stage, config: DistillConfig, fabric: Fabric, emit: Emit):
        self.stage, self.config, self.fabric, self.emit = stage, config, fabric, emit
        self.told: list[str] = []
        self._counted: set[str] = set()
        self._next = math.inf
        self._looked = False
        self._length: Tensor | None = None
        self._length_then: Tensor | None = None

    def look(self, step: int, terms: Mapping[str, Tensor], values: Mapping[str, float]) -> None:
        """Compare the gradients, if it is time to.

        Parameters
        ----------
        step
            Number of the step, from 1.
        terms, values
            What the stage's loss returned, as tensors with their graph and as numbers.
        """
        weighted = {name.removeprefix(WEIGHTED): v for name, v in values.items() if name.startswith(WEIGHTED)}
        counted = {name for name, value in weighted.items() if value != 0}
        self._looked = bool(weighted) and self._is_time(step, counted)
        if not self._looked:
            return
        norms = gradient_norms(self.stage, terms, self._loss_scale())
        self._counted |= counted
        if not all(map(math.isfinite, norms.values())):  # 16 bits overflowed: the next scale is lower
            self._next = step + 1
            return
        self._next = step + INTERVAL * len(counted)
        labels = norms.get(LABELS, 0.0)
        for name in sorted(counted - {*self.told}):
            if norms[name] > LIMIT * labels > 0:
                self.told.append(name)
                self.emit(Message(self._sentence(name, norms[name] / labels, step), "warning"))

    def stepped(self, length: Tensor | None) -> None:
        """Take note of how long the whole gradient of the step was before it was cut; read only in the next step."""
        self._length = length
        if self._looked:
            self._length_then = length

    def _is_time(self, step: int, counted: set[str]) -> bool:
        """Whether to look at this step: all processes or none, as all have to take part."""
        new = not counted <= self._counted
        wish = not counted <= {*self.told} and (new or step >= self._next or self._has_jumped())
        return bool(shares().largest(int(wish)))

    def _has_jumped(self) -> bool:
        if self._length is None or self._length_then is None:
            return False
        return float(self._length) > JUMP * float(self._length_then)

    def _loss_scale(self) -> float:
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        return 1.0 if scaler is None else float(scaler.get_scale())

    def _sentence(self, name: str, times: float, step: int) -> str:
        rounded = round(times, 1 - math.floor(math.log10(times)))
        return (
            f"The term '{name}' pulls {rounded:,.0f} times as hard at the {self.stage.title.lower()} as the labels do "
            f"(the norms of their gradients in step {step}), so that hardly anything is learnt from the labels. "
            f"Lower its weight{self._where(name)}; or leave it, if it is meant so."
        )

    def _where(self, name: str) -> str:
        """Name the constants of the method that hold the term's weight, as a file and as the window calls them."""
        weight = next((term.weight for term in getattr(self.stage, "terms", ()) if term.name == name), None)
        method = get_method(self.config.method)
        constants = method.settings(self.config.settings)
        holding = [
            f"settings.{key} ('{field.title}', now {weight:g})"
            for key, field in method.settings_class.model_fields.items()
            if key not in AloneSettings.model_fields
            and key.endswith("weight")
            and getattr(constants, key) == weight
        ]
        return f": {' or '.join(holding)}" if holding else ""
