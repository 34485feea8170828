"""Dock 1, Slide, answers: what am I looking at."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QFileDialog, QFormLayout, QWidget

from napari_kdseg.slides.formats import FILES, patterns, titles
from napari_kdseg.synthetic.address import is_address
from napari_kdseg.widgets.layers.magnification import (
    in_words,
    magnification_of,
    native_magnification,
    zoom_for,
)
from napari_kdseg.widgets.parts.controls import button, combo, heading, row
from napari_kdseg.widgets.parts.dock import Dock
from napari_kdseg.widgets.parts.fold import Fold
from napari_kdseg.widgets.parts.note import Note
from napari_kdseg.widgets.sample_data import ADDRESS
from napari_kdseg.widgets.slide_dock.annotation_box import AnnotationBox
from napari_kdseg.widgets.slide_dock.colour_box import ColourBox
from napari_kdseg.widgets.slide_dock.reading_box import ReadingBox
from napari_kdseg.widgets.slide_dock.scale_box import ScaleBox
from napari_kdseg.widgets.slide_dock.slide_pictures import SlidePictures
from napari_kdseg.widgets.slide_dock.thumbnail import Thumbnail
from napari_kdseg.widgets.slide_dock.tissue_box import TissueBox
from napari_kdseg.widgets.state.background import in_background
from napari_kdseg.widgets.state.camera import go_to
from napari_kdseg.widgets.state.remembered import last_folder, recent_slides, remember_folder, remember_slide

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_kdseg.slides import Slide

MAGNIFICATIONS = (1, 2.5, 5, 10, 20, 40)
SLIDE_PATTERNS = f"Slides ({' '.join(patterns(*FILES))});;All files (*)"
FOLLOW_MS = 50
"""The rectangle follows the camera at most this often."""


class SlideDock(Dock):
    """Open a slide and find one's way on it; scale, colours, tissue, annotations, and what else the file holds."""

    def __init__(self, napari_viewer: Viewer):
        super().__init__(napari_viewer)
        self.setAcceptDrops(True)
        self.note = Note(f"Open a slide, or drop one here: {', '.join(titles())}.")
        self._build_open()
        self.thumbnail = Thumbnail()
        self.thumbnail.went.connect(self._go)
        self.facts_box = QWidget()
        self.facts = QFormLayout(self.facts_box)
        self.facts.setContentsMargins(0, 0, 0, 0)
        self.facts.setVerticalSpacing(2)
        self.reading = ReadingBox(self.session)
        self.scale = ScaleBox()
        self.scale.given.connect(
            lambda mpp: self.session.give_scale((mpp, mpp), on_failed=self.scale.note.warn)
        )
        self.colours = ColourBox(self.session)
        self.colours_fold = Fold("Colours and stains", open=False)
        self.colours_fold.content.addWidget(self.colours)
        self.tissue = TissueBox(self.session)
        self.annotations = AnnotationBox(self.session)
        self.annotations_fold = Fold("Annotations")
        self.annotations_fold.content.addWidget(self.annotations)
        self.pictures = SlidePictures()
        self.column.addWidget(self.thumbnail)
        self.column.addWidget(self.facts_box)
        self.column.addWidget(self.reading)
        self._build_magnification()
        for widget in (self.scale, self.colours_fold, self.tissue, self.annotations_fold, self.pictures):
            self.column.addWidget(widget)
        self.column.addStretch(1)
        self._follow_camera()
        self.session.slide_changed.connect(self._show_slide)
        self.session.damage_found.connect(self._show_damage)
        self.session.annotation_changed.connect(self.annotations.show_annotation)
        self._show_slide(self.session.slide)
        self.annotations.show_annotation(self.session.annotation)

    # -- building ----------------------------------------------------------------------------------

    def _build_open(self) -> None:
        self.column.addWidget(
            row(
                button("Open…", "Open a slide file", self._browse_file),
                button("Folder…", "Open a DICOM folder or an OME-Zarr slide", self._browse_folder),
                button(
                    "Sample",
                    "A synthetic slide of 100,000 x 80,000 px with exact gland outlines",
                    self._open_sample,
                ),
            )
        )
        self.recent = combo("Slides opened recently")
        self.recent.activated.connect(self._open_recent)
        self.column.addWidget(self.recent)
        self.column.addWidget(self.note)
        self._fill_recent()

    def _build_magnification(self) -> None:
        self.magnification_heading = heading("Magnification")
        self.magnification_heading.setToolTip("At 10x one pixel of the screen is one micrometre")
        self.column.addWidget(self.magnification_heading)
        self.presets = {
            m: button(f"{m:g}x", f"One pixel of the screen is {10 / m:g} µm", partial(self._magnify, m))
            for m in MAGNIFICATIONS
        }
        self.fit = button("Fit", "All that was scanned", lambda: go_to(self.viewer, self.session.slide))
        for made in (*self.presets.values(), self.fit):
            made.setMinimumWidth(30)
            made.setStyleSheet("padding: 3px 2px;")
        self.magnification = row(*self.presets.values(), self.fit)
        self.column.addWidget(self.magnification)

    def _follow_camera(self) -> None:
        self._moved = QTimer(self)
        self._moved.setSingleShot(True)
        self._moved.setInterval(FOLLOW_MS)
        self._moved.timeout.connect(self._show_view)
        self.session.view_changed.connect(self._on_moved)

    def _on_moved(self) -> None:
        if not self._moved.isActive():
            self._moved.start()

    # -- opening -----------------------------------------------------------------------------------

    def open(self, path: str) -> None:
        """Open ``path`` off the GUI thread."""
        self.note.say(f"Opening {Path(path).name} …")
        annotation = path if is_address(path) else None
        self.session.open_slide(path, annotation=annotation, on_failed=self.note.warn)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:  # noqa: D102
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:  # noqa: D102
        self.open(event.mimeData().urls()[0].toLocalFile())

    def _browse_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a slide", last_folder("slide"), SLIDE_PATTERNS)
        if path:
            remember_folder("slide", path)
            self.open(path)

    def _browse_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(
            self, "Open a DICOM folder or an OME-Zarr slide", last_folder("slide")
        )
        if path:
            remember_folder("slide", path)
            self.open(path)

    def _open_sample(self) -> None:
        self.open(ADDRESS)

    def _open_recent(self, index: int) -> None:
        path = self.recent.itemData(index)
        if path:
            self.open(path)

    def _fill_recent(self) -> None:
        self.recent.clear()
        self.recent.addItem("Recent slides …", None)
        for path in recent_slides():
            self.recent.addItem(path if is_address(path) else Path(path).name, path)
            self.recent.setItemData(self.recent.count() - 1, path, Qt.ItemDataRole.ToolTipRole)
        self.recent.setVisible(self.recent.count() > 1)

    def _remember(self, path: str) -> None:
        remember_slide(path)
        self._fill_recent()

    # -- showing -----------------------------------------------------------------------------------

    def _show_slide(self, slide: Slide | None) -> None:
        there = slide is not None
        for widget in (
            self.facts_box,
            self.magnification_heading,
            self.magnification,
            self.reading,
            self.scale,
            self.annotations_fold,
        ):
            widget.setVisible(there)
        self.thumbnail.set_picture(None)
        self.colours_fold.setVisible(there and slide.brightfield)  # type: ignore[union-attr]
        self.colours.show_slide(slide)
        self.tissue.show_slide(slide)
        self.pictures.show_slide(slide)
        if slide is None:
            return
        self.note.say("")
        self._remember(str(slide.path))
        self._show_facts(slide)
        self._show_presets(slide)
        self.reading.show_slide(slide)
        self.scale.show_slide(slide)
        self._read_overview(slide)
        self._show_view()
        self._show_damage()

    def _show_facts(self, slide: Slide) -> None:
        while self.facts.rowCount():
            self.facts.removeRow(0)
        from napari_kdseg.slides import describe

        for name, text in describe(slide):
            if name not in ("Picture", "Read as"):  # they have a box of their own, where they can be changed
                self.facts.addRow(f"{name}:", Note(text))

    def _show_damage(self) -> None:
        count = len(self.session.slide.bad_tiles) if self.session.slide is not None else 0
        if count:
            tiles = "1 tile" if count == 1 else f"{count:,} tiles"
            self.note.warn(
                f"{tiles} of this file cannot be read: shown grey. Copy it again from where it came from."
            )

    def _show_presets(self, slide: Slide) -> None:
        native = native_magnification(slide)
        for m, made in self.presets.items():
            made.setEnabled(native is not None)
            beyond = native is not None and m > 1.1 * native
            tip = f"One pixel of the screen is {10 / m:g} µm"
            made.setToolTip(f"{tip}, finer than the scan ({in_words(native)})" if native and beyond else tip)

    def _read_overview(self, slide: Slide) -> None:
        def work() -> np.ndarray:
            from napari_kdseg.slides.views.overview import overview

            return overview(slide)

        def show(pixels: np.ndarray) -> None:
            if self.session.slide is slide:
                self.thumbnail.set_picture(pixels)
                self._show_view()

        in_background(work, show, self.note.warn)

    def _show_view(self) -> None:
        """Draw where the canvas looks, and at what magnification."""
        slide = self.session.slide
        if slide is None or self.session.closed:
            return
        camera = self.viewer.scene.camera
        mpp = np.asarray(slide.mpp or (1.0, 1.0))
        extent = np.asarray(slide.shape) * mpp
        size = np.asarray(self.viewer.canvas.size) / camera.zoom
        top_left = (np.asarray(camera.center[-2:]) + mpp / 2 - size / 2) / extent
        self.thumbnail.set_view(*(float(value) for value in (*top_left, *(size / extent))))
        if slide.mpp is not None:
            now = in_words(magnification_of(camera.zoom))
            self.magnification_heading.setText(f"<b>Magnification</b>   now {now}")
        else:
            self.magnification_heading.setText("<b>Magnification</b>   needs the scale")

    def _go(self, y: float, x: float) -> None:
        slide = self.session.slide
        if slide is not None:
            mpp = np.asarray(slide.mpp or (1.0, 1.0))
            centre = np.asarray((y, x)) * np.asarray(slide.shape) * mpp - mpp / 2
            self.viewer.scene.camera.center = tuple(float(value) for value in centre)

    def _magnify(self, magnification: float) -> None:
        self.viewer.scene.camera.zoom = zoom_for(magnification)
