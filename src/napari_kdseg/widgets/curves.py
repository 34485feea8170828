"""Live curves of a distillation: the loss of every step, and Dice on the validation set after every epoch.

Refilled from the run's history when the dock opens late, updated in place while the job runs.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pyqtgraph as pg
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_kdseg.jobs import Step, Validated
from napari_kdseg.widgets.colours import BLUE, BLUISH_GREEN, ORANGE, REDDISH_PURPLE, SKY_BLUE

STAGE_COLOURS = {
    "teacher": BLUE,
    "false_pixel_assistant": SKY_BLUE,
    "boundary_assistant": BLUISH_GREEN,
    "student": ORANGE,
}
KEPT_POINTS = 4000


class Curves(QWidget):
    """Two plots over one another: loss by step, validation Dice by epoch; a colour a stage."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = self._plot("loss", "step")
        self.dice = self._plot("validation Dice", "epoch")
        self.dice.setYRange(0, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.loss)
        layout.addWidget(self.dice)
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
        for plot in (self.loss, self.dice):
            plot.clear()

    def take(self, events: list[Any]) -> None:
        """Add what the events say and redraw once."""
        changed = set()
        for event in events:
            if isinstance(event, Step) and "loss" in event.values:
                changed.add(self._add("loss", event.stage, event.done, event.values["loss"]))
            elif isinstance(event, Validated) and "val_dice" in event.metrics:
                changed.add(self._add("dice", event.stage, event.epoch, event.metrics["val_dice"]))
        for key in changed:
            points = sorted(self.points[key].items())
            self._line(key).setData([x for x, _ in points], [y for _, y in points])

    def _add(self, plot: str, stage: str, x: float, y: float) -> tuple[str, str]:
        points = self.points[plot, stage]
        points[x] = y  # a step seen twice (history and event of a resumed run) counts once
        if len(points) > KEPT_POINTS:  # thin out evenly: the shape of the curve stays
            for old in sorted(points)[1::2]:
                del points[old]
        return plot, stage

    def _line(self, key: tuple[str, str]) -> Any:
        if key not in self.lines:
            plot, stage = key
            pen = pg.mkPen(STAGE_COLOURS.get(stage, REDDISH_PURPLE), width=2)
            target = self.loss if plot == "loss" else self.dice
            symbol = None if plot == "loss" else "o"
            self.lines[key] = target.plot(
                [], [], pen=pen, name=stage.replace("_", " "), symbol=symbol, symbolSize=5
            )
        return self.lines[key]
