"""Soft labels corrected on what is on screen, and how much each step mended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QGridLayout, QProgressBar, QVBoxLayout, QWidget

from napari_kdseg.jobs import Event, Failed, Terminal
from napari_kdseg.widgets.compare_dock.counts import counts_row
from napari_kdseg.widgets.layers import colours
from napari_kdseg.widgets.parts.controls import button, clear, heading, row
from napari_kdseg.widgets.parts.note import Note
from napari_kdseg.widgets.parts.questions import offer_replacing
from napari_kdseg.widgets.state.camera import visible_region
from napari_kdseg.widgets.state.session import given_mpp

if TYPE_CHECKING:
    from napari_kdseg.widgets.state.job_handle import JobHandle
    from napari_kdseg.widgets.state.session import Session


class CorrectionsBox(QWidget):
    """Starts the correction of soft labels, follows it, and shows who mended what."""

    def __init__(self, session: Session):
        super().__init__()
        self.session = session
        self.job: JobHandle | None = None
        self.note = Note()
        self.correct = button(
            "Correct the soft labels here",
            "Teacher, assistants and similarity correction, on what is on screen and annotated",
            self.start,
        )
        self.cancel = button("Cancel", "Stop after this tile", self.stop)
        self.progress = QProgressBar()
        self.progress_row = row(self.progress, self.cancel, stretch=0)
        self.progress_row.hide()
        holder = QWidget()
        self.counts = QGridLayout(holder)
        self.counts.setContentsMargins(0, 0, 0, 0)
        self.counts.setColumnStretch(1, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (heading("Corrections"), self.note, self.correct, self.progress_row, holder):
            layout.addWidget(widget)
        session.models_changed.connect(self.mirror)
        session.annotation_changed.connect(self.mirror)
        session.overlays_changed.connect(self.mirror)
        session.job_started.connect(self._on_job)
        if "correct" in session.jobs:
            self._on_job(session.jobs["correct"])
        self.mirror()

    def start(self) -> JobHandle | None:
        """Start the correction of the soft labels on what is on screen."""
        from napari_kdseg.comparison import CorrectConfig

        session, slide, output = self.session, self.session.slide, self.session.masks_path()
        teacher = session.models.get("teacher")
        if slide is None or output is None or teacher is None or session.annotation is None:
            return None
        region = visible_region(session.viewer, slide)
        if min(region[2:]) <= 0:
            self.note.warn("The slide is not on screen. Press Home to see it.")
            return None
        paths = {role: model.path for role, model in session.models.items()}
        config = CorrectConfig(
            slide=str(slide.path),
            slide_mpp=given_mpp(slide),
            colours=session.network_colours,
            annotation=session.annotation,
            annotation_bounds=session.annotation_bounds,
            teacher=teacher.path,
            false_pixel_assistant=paths.get("false_pixel_assistant"),
            boundary_assistant=paths.get("boundary_assistant"),
            output=output,
            region=region,
        )
        title = f"Correction on {slide.name}"
        return session.start("correct", title, "napari_kdseg.comparison:correct", config)

    def stop(self) -> None:
        """Ask the correction to stop after this tile."""
        if self.job is not None:
            self.job.cancel()

    def _on_job(self, job: JobHandle) -> None:
        if job.kind != "correct":
            return
        self.job = job
        self.progress_row.setVisible(job.alive)
        self.correct.setEnabled(not job.alive)
        self.progress.setRange(0, 0)
        job.events.connect(self._on_events)
        job.ended.connect(self._on_end)

    def _on_events(self, _events: list[Event]) -> None:
        step = self.job.latest if self.job else None
        if step is not None:
            self.progress.setRange(0, step.total)
            self.progress.setValue(step.done)

    def _on_end(self, end: Terminal) -> None:
        self.progress_row.hide()
        self.correct.setEnabled(True)
        if self.job is not None and offer_replacing(self.session, self.job, end, self):
            return
        if isinstance(end, Failed):
            self.note.warn(end.message)
        self.session.refresh_masks()

    def mirror(self, _changed: object = None) -> None:
        """Say what is still wanted for a correction."""
        session = self.session
        ready = session.slide is not None and "teacher" in session.models and session.annotation is not None
        running = self.job is not None and self.job.alive
        self.correct.setEnabled(ready and not running)
        if session.annotation is None:
            self.note.say("Give an annotation under 1 Slide: corrections are made against it.")
        elif "teacher" not in session.models:
            self.note.say("Load the teacher, and the assistants if you have them, under 2 Models.")
        else:
            self.note.say("")

    def show_counts(self, mended_by: dict[int, tuple[str, ...]]) -> None:
        """Show for every step, by its code, what it is, pixels and share."""
        clear(self.counts)
        for index, (code, text) in enumerate(mended_by.items()):
            colour = colours.MENDED_BY[code][1] if code in colours.MENDED_BY else None
            counts_row(self.counts, index, colour, *text)
