"""Live curves of a distillation: the loss of every step and each of its terms; loss and Dice on validation each epoch.

Refilled from the run's history when the dock opens late, updated in place while the job runs.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pyqtgraph as pg
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from napari_kdseg.jobs import Event, Step, Validated
from napari_kdseg.widgets.layers.colours import (
    BLUE,
    BLUISH_GREEN,
    ORANGE,
    REDDISH_PURPLE,
    SKY_BLUE,
    VERMILION,
    YELLOW,
)

STAGE_COLOURS = {
    "teacher": BLUE,
    "false_pixel_assistant": SKY_BLUE,
    "boundary_assistant": BLUISH_GREEN,
    "student": ORANGE,
    "paraphraser": VERMILION,
    "critic": REDDISH_PURPLE,
    "teacher_2": YELLOW,
}
TERM_COLOURS = (ORANGE, BLUE, BLUISH_GREEN, REDDISH_PURPLE, SKY_BLUE, VERMILION, YELLOW)
KEPT_POINTS = 4000
NO_TERMS = {"loss", "lr", "images_per_s"}
WEIGHTED = "weighted/"


class Curves(QWidget):
    """Plots over one another: loss by step (a colour a stage), its terms (a colour a term), validation Dice by epoch.

    Dots in the plot of the loss are the loss on validation, at the step its epoch ended with. Terms are those of the
    stage that is trained now, raw or with their weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loss = self._plot("loss", "step")
        self.terms = self._plot("terms", "step")
        self.dice = self._plot("validation Dice", "epoch")
        self.dice.setYRange(0, 1)
        self.loss.setToolTip("Loss of every step; dots: on the validation tiles, after each epoch")
        self.weighted = QCheckBox("Terms with their weights")
        self.weighted.setToolTip("What each term contributes to the loss, instead of its raw value")
        self.weighted.toggled.connect(self._show_terms)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.loss, self.terms, self.weighted, self.dice):
            layout.addWidget(widget)
        self.clear()

    def _plot(self, vertical: str, horizontal: str) -> Any:
        plot = pg.PlotWidget(background=None)
        plot.setMinimumHeight(140)
        plot.setMaximumHeight(200)
        plot.setLabel("left", vertical)
        plot.setLabel("bottom", horizontal)
        plot.showGrid(x=True, y=True, alpha=0.2)
        plot.addLegend(offset=(-5, 5), labelTextSize="7pt")
        plot.getPlotItem().setMenuEnabled(False)
        plot.hideButtons()
        return plot

    def clear(self) -> None:
        """Forget everything, for a new run."""
        self.points: dict[tuple[str, str], dict[float, float]] = defaultdict(dict)
        self.lines: dict[tuple[str, str], Any] = {}
        self.stage = ""
        self.reached: dict[str, float] = {}
        for plot in (self.loss, self.terms, self.dice):
            plot.clear()
        self._show_terms()

    def take(self, events: list[Event]) -> None:
        """Add what the events say and redraw once."""
        changed = set()
        for event in events:
            if isinstance(event, Step) and "loss" in event.values:
                self.reached[event.stage] = event.done
                changed.add(self._add("loss", event.stage, event.done, event.values["loss"]))
                changed |= self._add_terms(event)
            elif isinstance(event, Validated):
                changed |= self._add_scores(event)
        for key in changed & set(self.points):  # terms of a stage that is over are gone
            points = sorted(self.points[key].items())
            self._line(key).setData([x for x, _ in points], [y for _, y in points])
        self._show_terms()

    def _add_scores(self, event: Validated) -> set[tuple[str, str]]:
        """Add what an epoch scored; a stage that does not segment has a loss on validation only."""
        at = self.reached.get(event.stage, 0)
        points = {"val_loss": ("validation", at), "val_dice": ("dice", event.epoch)}
        return {
            self._add(plot, event.stage, x, event.metrics[name])
            for name, (plot, x) in points.items()
            if name in event.metrics
        }

    def _add_terms(self, event: Step) -> set[tuple[str, str]]:
        """Add each term of the loss, raw and weighted; another stage begins with an empty plot."""
        if event.stage != self.stage:
            self.stage = event.stage
            for key in [key for key in self.points if key[0] in ("raw", "weighted")]:
                del self.points[key]
                line = self.lines.pop(key, None)
                if line is not None:
                    self.terms.removeItem(line)
        changed = set()
        for name, value in event.values.items():
            if name.startswith(WEIGHTED):
                changed.add(self._add("weighted", name.removeprefix(WEIGHTED), event.done, value))
            elif name not in NO_TERMS and "/" not in name:
                changed.add(self._add("raw", name, event.done, value))
                if f"{WEIGHTED}{name}" not in event.values:  # a part with no weight beside it counts as it is
                    changed.add(self._add("weighted", name, event.done, value))
        return changed

    def _show_terms(self) -> None:
        """Show the terms raw or weighted; nothing where a stage's loss has only one part."""
        shown = "weighted" if self.weighted.isChecked() else "raw"
        several = sum(kind == "raw" for kind, _ in self.points) > 1
        self.terms.setVisible(several)
        self.weighted.setVisible(several)
        for (kind, _), line in self.lines.items():
            if kind in ("raw", "weighted"):
                line.setVisible(kind == shown)

    def _add(self, plot: str, name: str, x: float, y: float) -> tuple[str, str]:
        points = self.points[plot, name]
        points[x] = y  # a step seen twice (history and event of a resumed run) counts once
        if len(points) > KEPT_POINTS:  # thin out evenly: the shape of the curve stays
            for old in sorted(points)[1::2]:
                del points[old]
        return plot, name

    def _line(self, key: tuple[str, str]) -> Any:
        if key not in self.lines:
            kind, name = key
            if kind in ("raw", "weighted"):
                names = sorted({term for present, term in self.points if present == "raw"})
                colour = TERM_COLOURS[names.index(name) % len(TERM_COLOURS) if name in names else 0]
            else:
                colour = STAGE_COLOURS.get(name, REDDISH_PURPLE)
            target = {"loss": self.loss, "validation": self.loss, "dice": self.dice}.get(kind, self.terms)
            self.lines[key] = target.plot(
                [],
                [],
                pen=pg.mkPen(colour, width=2) if kind != "validation" else None,
                name=name.replace("_", " ") if kind not in ("weighted", "validation") else None,
                symbol="o" if kind in ("dice", "validation") else None,
                symbolSize=5 if kind == "dice" else 7,
                symbolBrush=colour if kind == "validation" else None,
            )
        return self.lines[key]
