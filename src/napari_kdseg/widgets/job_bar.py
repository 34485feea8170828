"""The status line along the bottom: what runs, how far it is, pause and stop."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QWidget

from napari_kdseg.jobs import Cancelled, Done, Event, Failed, Paused, Resumed, Terminal, Validated
from napari_kdseg.widgets.binding import session_of
from napari_kdseg.widgets.parts.controls import button
from napari_kdseg.widgets.parts.wording import duration
from napari_kdseg.widgets.state.job_handle import JobHandle

if TYPE_CHECKING:
    from napari.viewer import Viewer


class JobBar(QWidget):
    """One line for the job started last."""

    def __init__(self, viewer: Viewer):
        super().__init__()
        self.session = session_of(viewer)
        self.job: JobHandle | None = None
        self.text = QLabel("Nothing is running.")
        self.progress = QProgressBar()
        self.progress.setMaximumWidth(260)
        self.pause = button("Pause", "Wait after this batch or tile", self._pause)
        self.stop = button("Stop", "Stop after this batch or tile; what is done is kept", self._stop)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(8, 2, 8, 2)
        layout.addWidget(self.text, 1)
        for widget in (self.progress, self.pause, self.stop):
            layout.addWidget(widget)
            widget.hide()
        self.setMaximumHeight(40)
        self.session.job_started.connect(self._follow)
        alive = [job for job in self.session.jobs.values() if job.alive]
        if alive:
            self._follow(alive[-1])

    def _follow(self, job: JobHandle) -> None:
        if self.job is not None:
            self.job.events.disconnect(self._on_events)
            self.job.ended.disconnect(self._on_end)
        self.job = job
        self.started = time.monotonic()
        self.score = ""
        self.text.setText(f"running: {job.title} …")
        self.pause.setText("Pause")
        self.stop.setText("Stop")
        for widget in (self.progress, self.pause, self.stop):
            widget.setEnabled(True)
            widget.show()
        self.progress.setRange(0, 0)
        job.events.connect(self._on_events)
        job.ended.connect(self._on_end)

    def _on_events(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Validated) and "val_dice" in event.metrics:
                self.score = f", epoch {event.epoch}/{event.epochs}, Dice {event.metrics['val_dice']:.3f}"
            elif isinstance(event, Paused):
                self.pause.setText("Resume")
            elif isinstance(event, Resumed):
                self.pause.setText("Pause")
        job = self.job
        if job is None or job.latest is None:
            return
        step = job.latest
        speed = step.values.get("images_per_s")
        pace = f", {speed:.0f} img/s" if speed else ""
        left = ""
        if speed is None and step.done:
            left = (
                f", {duration((time.monotonic() - self.started) / step.done * (step.total - step.done))} left"
            )
        self.progress.setRange(0, step.total)
        self.progress.setValue(step.done)
        self.text.setText(f"running: {job.title}, {step.stage.replace('_', ' ')}{self.score}{pace}{left}")

    def _on_end(self, end: Terminal) -> None:
        words = {Done: "done", Cancelled: "stopped; what is done is kept", Failed: "failed"}[type(end)]
        detail = f": {end.message}" if isinstance(end, Failed) else ""
        self.text.setText(f"{self.job.title if self.job else ''} {words}{detail}")
        for widget in (self.progress, self.pause, self.stop):
            widget.hide()

    def _pause(self) -> None:
        if self.job is not None:
            self.job.pause_or_resume()

    def _stop(self) -> None:
        if self.job is not None:
            self.stop.setText("Stopping…")
            self.stop.setEnabled(False)
            self.job.cancel()
