"""The predictions of one network as they run: how far, how fast, how long still; pause, go on, cancel."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QProgressBar, QVBoxLayout, QWidget

from napari_kdseg.jobs import Event, Message, Paused, Resumed, Started, Step, Terminal
from napari_kdseg.widgets.parts.controls import button, row
from napari_kdseg.widgets.parts.questions import offer_replacing
from napari_kdseg.widgets.parts.wording import duration
from napari_kdseg.widgets.state.connections import connect
from napari_kdseg.widgets.state.job_handle import JobHandle
from napari_kdseg.widgets.state.session import Session

if TYPE_CHECKING:
    from napari_kdseg.inference import PredictConfig

#: Masks on screen are renewed this often while they grow.
REFRESH_SECONDS = 0.2


class PredictionRow(QWidget):
    """Follows the first prediction in the queue that has this network.

    Signals
    -------
    said(Message)
        A sentence of the job.
    ended(object)
        The terminal event of a prediction.
    """

    said = Signal(object)
    ended = Signal(object)

    def __init__(self, session: Session, role: str):
        super().__init__()
        self.session, self.role = session, role
        self.jobs: list[JobHandle[PredictConfig]] = []
        self.progress = QProgressBar()
        self.progress.setTextVisible(True)
        self.pause = button("Pause", "Wait after the tiles under way; Resume goes on", self._pause)
        self.cancel = button("Cancel", "Stop after the tiles under way; what is done stays", self._cancel)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.progress)
        layout.addWidget(row(self.pause, self.cancel))
        self.hide()
        session.predictions.added.connect(self._take)
        for job in session.predictions.jobs:
            self._take(job)

    @property
    def job(self) -> JobHandle[PredictConfig] | None:
        """The prediction that is shown."""
        return self.jobs[0] if self.jobs else None

    def _take(self, job: JobHandle[PredictConfig]) -> None:
        if self.role not in job.config.networks:
            return
        self.jobs.append(job)
        connect(job.events, self._on_events, job)
        connect(job.ended, self._on_end, job)
        if self.job is job:
            self._show()

    def _show(self) -> None:
        """Show the present prediction from its beginning, or that it waits."""
        job = self.job
        self.setVisible(job is not None)
        if job is None:
            return
        self.began = self.shown = time.monotonic()
        self.first: int | None = None
        self.pause.setText("Pause")
        self.cancel.setText("Cancel")
        for widget in (self.pause, self.cancel):
            widget.setEnabled(True)
        self.pause.setVisible(not job.waiting)
        self.progress.setRange(0, 0)
        ahead = self.session.predictions.ahead_of(job)
        self.progress.setFormat(f"waits for {ahead} before it" if job.waiting else "getting ready …")

    def _on_events(self, job: JobHandle[PredictConfig], events: list[Event]) -> None:
        if job is not self.job:
            return
        for event in events:
            if isinstance(event, Started):
                self.began = time.monotonic()
                self.pause.show()
            elif isinstance(event, Message):
                self.said.emit(event)
            elif isinstance(event, Paused):
                self.pause.setText("Resume")
                self.pause.setEnabled(True)
            elif isinstance(event, Resumed):
                self.pause.setText("Pause")
                self.pause.setEnabled(True)
        steps = [event for event in events if isinstance(event, Step) and event.stage == self.role]
        if steps:
            self._show_step(steps[-1], steps[0])

    def _show_step(self, step: Step, first: Step) -> None:
        if self.first is None:
            self.first = first.done - 1  # what an earlier run had done took no time in this one
        done = step.done - self.first
        left = (time.monotonic() - self.began) / max(done, 1) * (step.total - step.done)
        self.progress.setRange(0, step.total)
        self.progress.setValue(step.done)
        self.progress.setFormat(
            f"{step.done} of {step.total} tiles, {step.values['mpx_per_s']:.1f} Mpx/s, {duration(left)} left"
        )
        if time.monotonic() - self.shown > REFRESH_SECONDS:
            self.shown = time.monotonic()
            self.session.refresh_masks()

    def _on_end(self, job: JobHandle[PredictConfig], end: Terminal) -> None:
        self.jobs.remove(job)
        self._show()
        self.session.refresh_masks()
        if not offer_replacing(self.session, job, end, self):
            self.ended.emit(end)

    def _pause(self) -> None:
        if self.job is not None:
            self.pause.setEnabled(False)
            self.pause.setText("Pausing…" if self.pause.text() == "Pause" else "Resuming…")
            self.job.pause_or_resume()

    def _cancel(self) -> None:
        if self.job is not None:
            self.cancel.setText("Cancelling…")
            self.cancel.setEnabled(False)
            self.job.cancel()
