"""Dock 1, Slide, answers: what am I looking at."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QDoubleSpinBox, QFileDialog, QFormLayout, QLabel, QWidget

from napari_kdseg.widgets.parts import (
    Dock,
    Note,
    PathRow,
    button,
    combo,
    heading,
    last_folder,
    remember_folder,
    row,
    settings,
)
from napari_kdseg.widgets.sample_data import ADDRESS

if TYPE_CHECKING:
    from napari_kdseg.slides import Slide

MAGNIFICATIONS = (1, 2.5, 5, 10, 20, 40)
SLIDE_PATTERNS = (
    "Slides (*.svs *.ndpi *.tif *.tiff *.mrxs *.scn *.bif *.vms *.vmu *.svslide *.czi *.dcm *.btf);;"
    "All files (*)"
)
MASK_PATTERNS = "Masks (*.png *.tif *.tiff);;All files (*)"
RECENT = 8


class SlideDock(Dock):
    """Open a slide; see its size and scale; give the scale where the file has none; choose the annotation."""

    def __init__(self, napari_viewer: Any):
        super().__init__(napari_viewer)
        self.note = Note("Open a slide, or drop one on the window.")
        self._build_open()
        self._build_facts()
        self._build_scale()
        self._build_annotation()
        self.column.addStretch(1)
        self.session.slide_changed.connect(self._show_slide)
        self.session.annotation_changed.connect(self._show_annotation)
        self._show_slide(self.session.slide)
        self._show_annotation(self.session.annotation)

    # -- building ----------------------------------------------------------------------------------

    def _build_open(self) -> None:
        self.column.addWidget(
            row(
                button(
                    "Open…",
                    "Open a slide file: SVS, NDPI, MRXS, SCN, DICOM, TIFF, OME-TIFF, ...",
                    self._browse_file,
                ),
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

    def _build_facts(self) -> None:
        self.facts_box = QWidget()
        self.facts = QFormLayout(self.facts_box)
        self.facts.setContentsMargins(0, 0, 0, 0)
        self.column.addWidget(self.facts_box)

    def _build_scale(self) -> None:
        self.scale_heading = heading("Magnification")
        self.column.addWidget(self.scale_heading)
        buttons = [
            button(f"{m:g}x", f"Zoom so that one screen pixel is {10 / m:g} µm", partial(self._zoom, m))
            for m in MAGNIFICATIONS
        ]
        for made in buttons:
            made.setMinimumWidth(30)
        self.magnification = row(*buttons)
        self.column.addWidget(self.magnification)
        self.mpp_note = Note()
        self.column.addWidget(self.mpp_note)
        self.mpp = QDoubleSpinBox()
        self.mpp.setDecimals(4)
        self.mpp.setRange(0.02, 20.0)
        self.mpp.setValue(0.5)
        self.mpp.setSuffix(" µm per pixel")
        self.mpp.setToolTip("Size of one level-0 pixel. Typical scanners: 0.25 at 40x, 0.5 at 20x.")
        self.mpp_row = row(self.mpp, button("Use", "Take this scale for the slide", self._set_mpp), stretch=0)
        self.column.addWidget(self.mpp_row)

    def _build_annotation(self) -> None:
        self.annotation_heading = heading("Annotation")
        self.column.addWidget(self.annotation_heading)
        self.annotation = PathRow(
            "Mask of this slide (PNG, TIFF)", patterns=MASK_PATTERNS, remember="annotation"
        )
        self.annotation.chosen.connect(self._open_annotation)
        self.column.addWidget(self.annotation)
        self.annotation_note = Note()
        self.column.addWidget(self.annotation_note)

    # -- opening -----------------------------------------------------------------------------------

    def open(self, path: str) -> None:
        """Open ``path`` off the GUI thread."""
        self.note.say(f"Opening {Path(path).name} …")
        annotation = path if path.startswith("synthetic:") else None
        self.session.open_slide(path, annotation=annotation, on_failed=self.note.warn)

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
        paths = settings().value("recent", []) or []
        self.recent.clear()
        self.recent.addItem("Recent slides …", None)
        for path in [paths] if isinstance(paths, str) else paths:
            self.recent.addItem(Path(path).name if not path.startswith("synthetic:") else path, path)
        self.recent.setVisible(self.recent.count() > 1)

    def _remember(self, path: str) -> None:
        paths = settings().value("recent", []) or []
        paths = [paths] if isinstance(paths, str) else list(paths)
        settings().setValue("recent", ([path] + [p for p in paths if p != path])[:RECENT])
        self._fill_recent()

    # -- showing -----------------------------------------------------------------------------------

    def _show_slide(self, slide: Slide | None) -> None:
        there = slide is not None
        for part in (
            self.facts_box,
            self.annotation_heading,
            self.annotation,
            self.scale_heading,
            self.magnification,
        ):
            part.setVisible(there)
        self.mpp_row.setVisible(there and slide.mpp is None)  # type: ignore[union-attr]
        if slide is None:
            return
        self.note.say("")
        self._remember(str(slide.path))
        while self.facts.rowCount():
            self.facts.removeRow(0)
        from napari_kdseg.slides import describe

        for name, text in describe(slide):
            value = QLabel(text)
            value.setWordWrap(True)
            self.facts.addRow(f"{name}:", value)
        self.magnification.setEnabled(slide.mpp is not None)
        if slide.mpp is None:
            power = slide.objective_power
            hint = (
                f" Its objective power is {power:g}x, which often means {10 / power:g} µm." if power else ""
            )
            self.mpp_note.warn(
                f"This file does not say how large its pixels are.{hint} Until you give the scale, lengths are "
                "in pixels and networks run at level 0."
            )
            if power:
                self.mpp.setValue(10 / power)
        else:
            self.mpp_note.say("")

    def _set_mpp(self) -> None:
        slide = self.session.slide
        if slide is not None:
            self.session.open_slide(
                slide.path,
                annotation=self.session.annotation,
                mpp=self.mpp.value(),
                on_failed=self.mpp_note.warn,
            )

    def _zoom(self, magnification: float) -> None:
        self.viewer.scene.camera.zoom = magnification / 10

    # -- annotation --------------------------------------------------------------------------------

    def _open_annotation(self, path: str) -> None:
        slide = self.session.slide
        if slide is None:
            return
        from napari_kdseg.widgets.background import in_background
        from napari_kdseg.widgets.layers import annotation_layer, find, put_in_order

        def show(layer: Any) -> None:
            data, options, _ = layer
            present = find(self.viewer, "annotation")
            if present is not None:
                self.viewer.layers.remove(present)
            self.viewer.add_labels(data, **options).contour = 2
            put_in_order(self.viewer)

        in_background(lambda: annotation_layer(path, slide), show, self.annotation_note.warn)

    def _show_annotation(self, source: str | None) -> None:
        if source is None:
            self.annotation.set_path("")
            self.annotation_note.say(
                "None. With one, Compare shows how the teacher team corrects the soft labels here."
            )
        else:
            self.annotation.set_path(source)
            self.annotation_note.say("")
