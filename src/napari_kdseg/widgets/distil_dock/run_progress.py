"""A distillation while it runs and after: state, pause and stop, curves, the latest preview, log."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QLabel, QPlainTextEdit, QProgressBar, QSizePolicy, QVBoxLayout, QWidget

from napari_kdseg.jobs import Cancelled, Done, Event, Failed, Message, Paused, Resumed, Terminal, Validated
from napari_kdseg.widgets.distil_dock.curves import Curves
from napari_kdseg.widgets.parts.controls import button, row
from napari_kdseg.widgets.parts.note import Note
from napari_kdseg.widgets.state.background import in_background
from napari_kdseg.widgets.state.job_handle import JobHandle

if TYPE_CHECKING:
    from qtpy.QtGui import QResizeEvent

    from napari_kdseg.training import DistillConfig, DistillResult

NOT_SAID = ("lr", "weighted/")
"""Beginnings of the names of figures that the line of state leaves out; the curves show them."""


class RunProgress(QWidget):
    """Follows one job at a time.

    Signals
    -------
    running_changed(bool)
        A job began or ended.
    wanted()
        The networks of the finished run are asked for.
    """

    running_changed = Signal(bool)
    wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.job: JobHandle[DistillConfig] | None = None
        self.state = Note()
        self.progress = QProgressBar()
        self.pause = button("Pause", "Wait after this batch", self.pause_or_resume)
        self.stop_button = button("Stop", "Stop after this batch; the run can be resumed", self.stop)
        self.controls = row(self.pause, self.stop_button)
        self.use = button(
            "Use this student",
            "Load teacher, assistants and student of this run into 2 Models",
            self.wanted.emit,
        )
        self.curves = Curves()
        self.preview = Preview()
        self.log = QPlainTextEdit()
        self.log.setReadOnly(True)
        self.log.setMaximumBlockCount(1000)
        self.log.setMinimumHeight(110)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (
            self.state,
            self.progress,
            self.controls,
            self.use,
            self.curves,
            self.preview,
            self.log,
        ):
            layout.addWidget(widget)
        self.hide()

    def follow(self, job: JobHandle[DistillConfig]) -> None:
        """Show ``job`` from its beginning, wherever it stands."""
        self.job = job
        self.curves.clear()
        self.preview.clear()
        self.log.clear()
        self.show()
        self.use.hide()
        self._set_running(job.alive)
        self.state.say("Preparing …")
        self.progress.setRange(0, 0)
        job.events.connect(self._on_events)
        job.ended.connect(self._on_end)
        self._refill(job)
        self._on_events(job.history)
        if job.running.end is not None and not job.alive:
            self._on_end(job.running.end)

    def stop(self) -> None:
        """Ask the run to stop after this batch."""
        if self.job is not None:
            self.stop_button.setText("Stopping…")
            self.stop_button.setEnabled(False)
            self.job.cancel()

    def pause_or_resume(self) -> None:
        """Pause a working run, wake a paused one."""
        if self.job is not None:
            self.job.pause_or_resume()

    def _refill(self, job: JobHandle[DistillConfig]) -> None:
        """Draw the curve of the steps before this job was started, when it resumes a run."""
        from napari_kdseg.training.run.run_folder import read_history

        in_background(partial(read_history, job.config.output), self.curves.take, lambda _sentence: None)

    def _set_running(self, running: bool) -> None:
        self.controls.setVisible(running)
        self.progress.setVisible(running)
        self.pause.setText("Pause")
        self.stop_button.setText("Stop")
        self.stop_button.setEnabled(True)
        self.running_changed.emit(running)

    def _on_events(self, events: list[Event]) -> None:
        assert self.job is not None
        self.curves.take(events)
        for event in events:
            if isinstance(event, Message):
                self.log.appendPlainText(event.text)
            elif isinstance(event, Validated):
                self.log.appendPlainText(_scores(event))
            elif isinstance(event, Paused | Resumed):
                self.pause.setText("Resume" if isinstance(event, Paused) else "Pause")
        validated = [event for event in events if isinstance(event, Validated)]
        if validated and self.job.config.previews:
            self.preview.look(Path(self.job.config.output), validated[-1].stage, validated[-1].epoch)
        step = self.job.latest
        if step is not None:
            self.progress.setRange(0, step.total)
            self.progress.setValue(step.done)
            said = {name: value for name, value in step.values.items() if not name.startswith(NOT_SAID)}
            terms = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in said.items())
            self.state.say(f"{step.stage.replace('_', ' ')}, step {step.done} of {step.total}: {terms}")

    def _on_end(self, end: Terminal) -> None:
        self._set_running(False)
        if isinstance(end, Failed):
            self.state.warn(end.message)
            self.log.appendPlainText(end.details)
        elif isinstance(end, Cancelled):
            self.state.say("Stopped. Everything so far is kept; Resume goes on from here.")
        elif isinstance(end, Done):
            self.state.say(f"Done. {_result(end.result)}")
            self.use.show()


class Preview(QWidget):
    """The latest preview of a run: a validation tile, its annotation, and what the network trained now makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.caption = Note()
        self.picture = QLabel()
        self.picture.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        self.picture.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        self.picture.setToolTip(
            "One validation tile: as it is, with its annotation, and with the network's prediction"
        )
        self._image = QImage()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.caption)
        layout.addWidget(self.picture)
        self.clear()

    def clear(self) -> None:
        """Show nothing."""
        self._image = QImage()
        self.hide()

    def look(self, run: Path, stage: str, epoch: int) -> None:
        """Show the picture that was saved after an epoch, if there is one; read off the GUI thread."""
        path = run / "previews" / f"{stage}-{epoch:03d}.png"

        def show(image: QImage) -> None:
            if image.isNull():  # of a stage that does not segment there is none
                return
            self._image = image
            self.caption.say(f"Image, annotation, {stage.replace('_', ' ')} after epoch {epoch}")
            self._draw()
            self.show()

        in_background(lambda: QImage(str(path)), show)

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: D102
        super().resizeEvent(event)
        self._draw()

    def _draw(self) -> None:
        if not self._image.isNull():
            width = max(self.width(), 60)
            smooth = Qt.TransformationMode.SmoothTransformation
            self.picture.setPixmap(QPixmap.fromImage(self._image).scaledToWidth(width, smooth))


def _scores(event: Validated) -> str:
    """One line of the log; scores of single classes are in the report."""
    scores = ", ".join(
        f"{name.replace('_', ' ')} {value:.3f}" for name, value in event.metrics.items() if "/" not in name
    )
    return f"{event.stage.replace('_', ' ')}, epoch {event.epoch}/{event.epochs}: {scores}"


def _result(result: DistillResult) -> str:
    scores = [
        f"{role.replace('_', ' ')} Dice {metrics['val_dice']:.3f}"
        for role, metrics in result.metrics.items()
        if "val_dice" in metrics
    ]
    return "On the validation set: " + ", ".join(scores) + "." if scores else ""
