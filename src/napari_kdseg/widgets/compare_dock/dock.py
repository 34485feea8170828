"""Dock 4, Compare, answers: where do they differ, and why."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QGridLayout,
    QLabel,
    QProgressBar,
    QRadioButton,
    QSlider,
    QWidget,
)

from napari_kdseg.jobs import Event, Failed, Terminal
from napari_kdseg.widgets.compare_dock.counts import count
from napari_kdseg.widgets.compare_dock.export_box import ExportBox
from napari_kdseg.widgets.keys import KEYS
from napari_kdseg.widgets.layers import colours, overlays
from napari_kdseg.widgets.parts.controls import button, clear, combo, heading, row, swatch
from napari_kdseg.widgets.parts.dock import Dock
from napari_kdseg.widgets.parts.note import Note
from napari_kdseg.widgets.parts.questions import offer_replacing
from napari_kdseg.widgets.state.background import in_background
from napari_kdseg.widgets.state.camera import visible_region
from napari_kdseg.widgets.state.job_handle import JobHandle
from napari_kdseg.widgets.state.session import given_mpp

if TYPE_CHECKING:
    from napari.viewer import Viewer


TITLES = {
    "teacher": "Teacher",
    "corrected": "Corrected label",
    "student": "Student",
    "disagreement": "Disagreement",
}
VIEWS = {
    "mended_by": "who mended it",
    "confidence": "probability of the annotated class",
    "change": "change from the teacher's",
}


class CompareDock(Dock):
    """Show, hide and fade the overlays; correct soft labels here and count what each step mended."""

    def __init__(self, napari_viewer: Viewer):
        super().__init__(napari_viewer)
        self.job: JobHandle | None = None
        self.hint = Note()
        self.column.addWidget(self.hint)
        self._build_layers()
        self._build_corrections()
        self._build_disagreement()
        self.column.addWidget(heading("For other programs"))
        self.export = ExportBox(self.session)
        self.column.addWidget(self.export)
        self.column.addStretch(1)
        self.session.overlays_changed.connect(self._show)
        self.session.overlays_restyled.connect(self._mirror)
        self.session.models_changed.connect(self._show)
        self.session.annotation_changed.connect(self._show)
        self.session.job_started.connect(self._on_job)
        if "correct" in self.session.jobs:
            self._on_job(self.session.jobs["correct"])
        self._show()

    # -- overlays ----------------------------------------------------------------------------------

    def _build_layers(self) -> None:
        self.rows: dict[str, tuple[QCheckBox, QSlider]] = {}
        grid_holder = QWidget()
        grid = QGridLayout(grid_holder)
        grid.setContentsMargins(0, 0, 0, 0)
        for index, (group, title) in enumerate(TITLES.items()):
            key = f"Alt-{index + 1}"
            box = QCheckBox(title)
            box.setToolTip(f"{KEYS[key]} ({key})")
            box.toggled.connect(partial(self._set_visible, group))
            slider = QSlider(Qt.Orientation.Horizontal)
            slider.setRange(5, 100)
            slider.setToolTip("Opacity (Alt-Up, Alt-Down for all)")
            slider.valueChanged.connect(partial(self._set_opacity, group))
            for column, widget in enumerate(
                (swatch(colours.SOURCES[group]), box, slider, QLabel(key.replace("-", "+")))
            ):
                grid.addWidget(widget, index, column)
            self.rows[group] = (box, slider)
        grid.setColumnStretch(2, 1)
        self.column.addWidget(grid_holder)
        self.outline = QRadioButton("Outlines, by source")
        self.fill = QRadioButton("Filled, by class")
        (self.outline if self.session.outline else self.fill).setChecked(True)
        for choice in (self.outline, self.fill):
            choice.setToolTip(f"{KEYS['Alt-O']} (Alt-O)")
        self.outline.toggled.connect(lambda on: overlays.set_outline(self.session, on))
        self.column.addWidget(row(self.outline, self.fill))
        self.view = combo("What of the corrected soft label is shown; it is blank outside the annotation")
        for role, text in VIEWS.items():
            self.view.addItem(f"Corrected: {text}", role)
        self.view.setCurrentIndex(list(VIEWS).index(self.session.corrected_view))
        self.view.activated.connect(
            lambda index: overlays.choose_corrected_view(self.session, self.view.itemData(index))
        )
        self.column.addWidget(self.view)

    def _set_visible(self, group: str, on: bool) -> None:
        layer = overlays.layer_of(self.session, group)
        if layer is not None and layer.visible != on:
            layer.visible = on

    def _set_opacity(self, group: str, percent: int) -> None:
        layer = overlays.layer_of(self.session, group)
        if layer is not None and abs(layer.opacity - percent / 100) > 0.005:
            layer.opacity = percent / 100

    # -- corrections -------------------------------------------------------------------------------

    def _build_corrections(self) -> None:
        self.column.addWidget(heading("Corrections"))
        self.correct_note = Note()
        self.column.addWidget(self.correct_note)
        self.correct = button(
            "Correct the soft labels here",
            "Teacher, assistants and similarity correction, on what is on screen and annotated",
            self.start_correction,
        )
        self.cancel = button("Cancel", "Stop after this tile", self.stop_correction)
        self.progress = QProgressBar()
        self.progress_row = row(self.progress, self.cancel, stretch=0)
        self.progress_row.hide()
        self.column.addWidget(self.correct)
        self.column.addWidget(self.progress_row)
        holder = QWidget()
        self.counts = QGridLayout(holder)
        self.counts.setContentsMargins(0, 0, 0, 0)
        self.counts.setColumnStretch(1, 1)
        self.column.addWidget(holder)

    def start_correction(self) -> JobHandle | None:
        """Start the correction of the soft labels on what is on screen."""
        from napari_kdseg.comparison import CorrectConfig

        session, slide, output = self.session, self.session.slide, self.session.masks_path()
        teacher = session.models.get("teacher")
        if slide is None or output is None or teacher is None or session.annotation is None:
            return None
        region = visible_region(self.viewer, slide)
        if min(region[2:]) <= 0:
            self.correct_note.warn("The slide is not on screen. Press Home to see it.")
            return None
        paths = {role: model.path for role, model in session.models.items()}
        config = CorrectConfig(
            slide=str(slide.path),
            slide_mpp=given_mpp(slide),
            colours=self.session.network_colours,
            annotation=session.annotation,
            annotation_bounds=session.annotation_bounds,
            teacher=teacher.path,
            false_pixel_assistant=paths.get("false_pixel_assistant"),
            boundary_assistant=paths.get("boundary_assistant"),
            output=output,
            region=region,
        )
        return session.start(
            "correct", f"Correction on {slide.name}", "napari_kdseg.comparison:correct", config
        )

    def stop_correction(self) -> None:
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
            self.correct_note.warn(end.message)
        self.session.refresh_masks()

    # -- disagreement ------------------------------------------------------------------------------

    def _build_disagreement(self) -> None:
        self.column.addWidget(heading("Disagreement"))
        self.disagreement_note = Note()
        self.column.addWidget(self.disagreement_note)
        holder = QWidget()
        self.shares = QGridLayout(holder)
        self.shares.setContentsMargins(0, 0, 0, 0)
        self.shares.setColumnStretch(1, 1)
        self.column.addWidget(holder)

    # -- showing -----------------------------------------------------------------------------------

    def _show(self, _changed: object = None) -> None:
        present = {group: overlays.layer_of(self.session, group) is not None for group in self.rows}
        for group, (box, slider) in self.rows.items():
            box.setEnabled(present[group])
            slider.setEnabled(present[group])
        self._mirror()
        self.hint.say(
            ""
            if any(present.values())
            else "Nothing to compare yet. Let 2 Models show teacher and student here."
        )
        self._show_correction_hint()
        self._count()

    def _mirror(self) -> None:
        """Show how the layers look now, whoever changed them."""
        for group, (box, slider) in self.rows.items():
            layer = overlays.layer_of(self.session, group)
            if layer is not None:
                box.setChecked(layer.visible)
                slider.setValue(round(layer.opacity * 100))

    def _show_correction_hint(self) -> None:
        session = self.session
        ready = session.slide is not None and "teacher" in session.models and session.annotation is not None
        running = self.job is not None and self.job.alive
        self.correct.setEnabled(ready and not running)
        if session.annotation is None:
            self.correct_note.say("Give an annotation under 1 Slide: corrections are made against it.")
        elif "teacher" not in session.models:
            self.correct_note.say("Load the teacher, and the assistants if you have them, under 2 Models.")
        else:
            self.correct_note.say("")

    def _count(self) -> None:
        """Count who mended what and disagreement, off the GUI thread, on a level of the masks that is small enough."""
        path = self.session.masks_path()
        if path is None or not Path(path).exists():
            clear(self.counts)
            clear(self.shares)
            return
        in_background(partial(count, path), self._show_counts, self.disagreement_note.warn)

    def _show_counts(self, counted: dict[str, Any]) -> None:
        clear(self.counts)
        clear(self.shares)
        for index, (code, text) in enumerate(counted["mended_by"].items()):
            colour = colours.MENDED_BY[code][1] if code in colours.MENDED_BY else None
            _legend_row(self.counts, index, colour, *text)
        for index, (code, text) in enumerate(counted["disagreement"].items()):
            _legend_row(self.shares, index, colours.DISAGREEMENT[code][1], *text)
        self.disagreement_note.say(counted["agreement"])


def _legend_row(grid: QGridLayout, index: int, colour: str | None, *texts: str) -> None:
    if colour is not None:
        grid.addWidget(swatch(colour), index, 0)
    for column, text in enumerate(texts):
        label = QLabel(text)
        label.setWordWrap(not column)  # numbers stay whole, and the dock as narrow as it is
        if column:
            label.setAlignment(Qt.AlignmentFlag.AlignRight)
        grid.addWidget(label, index, column + 1)
