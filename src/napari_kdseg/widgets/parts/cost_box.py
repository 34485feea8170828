"""What teacher and student cost on this machine, in the dock: measured in the background, looked up the next time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QGridLayout, QLabel, QVBoxLayout, QWidget

from napari_kdseg.jobs import Done, Failed, Terminal
from napari_kdseg.widgets.parts.controls import clear
from napari_kdseg.widgets.parts.note import Note
from napari_kdseg.widgets.state.connections import connect
from napari_kdseg.widgets.state.job_handle import JobHandle

if TYPE_CHECKING:
    from napari_kdseg.inference.measuring.cost_figures import CostConfig, Row
    from napari_kdseg.slides import Slide
    from napari_kdseg.widgets.state.session import Session

#: A choice counts once nothing was typed for so long.
SETTLED_MS = 800


class CostBox(QWidget):
    """A small table, teacher | student | ratio. A new choice ends the measurement of the last one."""

    #: Whether networks are measured without being asked for.
    measures = True

    def __init__(self, session: Session):
        super().__init__()
        self.session = session
        self.job: JobHandle[CostConfig] | None = None
        self.config: CostConfig | None = None
        self.grid = QGridLayout()
        self.grid.setHorizontalSpacing(12)
        self.grid.setVerticalSpacing(1)
        self.note = Note()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(self.grid)
        layout.addWidget(self.note)
        self._settle = QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(SETTLED_MS)
        self._settle.timeout.connect(self._measure)

    def want(self, config: CostConfig | None) -> None:
        """Show what the networks of ``config`` cost, once nothing was changed for a moment; ``None`` shows nothing."""
        if config == self.config:
            return
        self.config = config
        self.stop()
        clear(self.grid)
        self.note.say("")
        if config is not None and self.measures:
            self._settle.start()

    def stop(self) -> None:
        """End what is being measured."""
        self._settle.stop()
        if self.job is not None and self.job.alive:
            self.job.cancel()

    def _measure(self) -> None:
        if self.job is not None and self.job.alive:  # ends after the step it is at
            self._settle.start()
            return
        assert self.config is not None, "the timer stops with it"
        title = "measuring what networks cost"
        self.note.say("Measuring what they cost here …")
        self.job = job = JobHandle(
            "cost", title, "napari_kdseg.inference:measure_costs", self.config, parent=self
        )
        connect(job.ended, self._show, job)

    def _show(self, job: JobHandle[CostConfig], end: Terminal) -> None:
        from napari_kdseg.inference.measuring.cost_figures import conditions, table

        if job is not self.job or job.config != self.config:
            return
        if isinstance(end, Failed):
            self.note.warn(end.message)
        elif isinstance(end, Done):
            costs = end.result.costs
            if costs:
                self._fill(table(costs, *tissue_of_slide(self.session.slide)))
                self.note.say(conditions(list(costs.values())))
            if end.result.problems:
                self.note.warn(" ".join(end.result.problems.values()))

    def _fill(self, rows: list[Row]) -> None:
        clear(self.grid)
        for line, cells in enumerate(rows):
            for column, text in enumerate(cells):
                label = QLabel(text)
                if column:
                    label.setAlignment(Qt.AlignmentFlag.AlignRight)
                self.grid.addWidget(label, line, column)
        self.grid.setColumnStretch(0, 1)


def tissue_of_slide(slide: Slide | None) -> tuple[float | None, float | None]:
    """Return the area in mm2 that a prediction of ``slide`` covers, and no scale; nothing without a slide or its scale.

    The whole slide: where its tissue lies is found by the prediction, which is no work for the window.
    """
    if slide is None or slide.mpp is None:
        return None, None
    height, width = slide.shape
    return height * slide.mpp[0] * width * slide.mpp[1] / 1e6, None
