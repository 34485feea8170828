"""Annotations of a slide, in and out: masks, QuPath GeoJSON, ASAP and ImageScope XML, and shapes drawn here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari.layers import Labels, Shapes
from qtpy.QtWidgets import QFileDialog, QVBoxLayout, QWidget

from napari_kdseg.slides.annotations.suffixes import (
    XmlFlavour,
    is_annotation_file,
    is_written,
    mask_patterns,
    outline_patterns,
)
from napari_kdseg.widgets.layers.placement import ROLE_KEY, LayerTuple, find, put_in_order
from napari_kdseg.widgets.layers.unsaved import saved, watch_shapes
from napari_kdseg.widgets.parts.controls import bounds_box, button, row
from napari_kdseg.widgets.parts.note import Note
from napari_kdseg.widgets.parts.path_row import PathRow
from napari_kdseg.widgets.state.background import in_background
from napari_kdseg.widgets.state.remembered import last_folder, remember_folder

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_kdseg.widgets.state.session import Session

OUTLINES, MASKS = " ".join(outline_patterns()), " ".join(mask_patterns())
OPEN_PATTERNS = f"Annotations ({OUTLINES} {MASKS});;Outlines ({OUTLINES});;Masks ({MASKS});;All files (*)"
SAVE_FORMATS: dict[str, tuple[str, XmlFlavour]] = {
    "QuPath GeoJSON (*.geojson)": (".geojson", "asap"),
    "QuPath GeoJSON, compressed (*.geojson.gz)": (".geojson.gz", "asap"),
    "ASAP XML (*.xml)": (".xml", "asap"),
    "ImageScope XML (*.xml)": (".xml", "imagescope"),
}
SHAPES = "shapes to edit"


class AnnotationBox(QWidget):
    """Open the annotation of a slide, draw and change shapes, save them for QuPath and others."""

    def __init__(self, session: Session):
        super().__init__()
        self.session = session
        self.path = PathRow(
            "Mask, GeoJSON or XML of this slide", patterns=OPEN_PATTERNS, remember="annotation"
        )
        self.path.chosen.connect(self.open)
        self.edit = button(
            "Edit shapes", "Show the polygons of this file as shapes that can be changed", self.edit_shapes
        )
        self.draw = button(
            "Draw", "A new layer for polygons; write the class of each into its table", self.draw_shapes
        )
        self.save = button(
            "Save…", "Write shapes, or a painted mask, for QuPath, ASAP or ImageScope", self._browse_save
        )
        self.bounds = bounds_box()
        self.bounds.clicked.connect(self._count_otherwise)
        self.note = Note()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.path)
        column.addWidget(row(self.edit, self.draw, self.save))
        column.addWidget(self.bounds)
        column.addWidget(self.note)
        self.show_annotation(session.annotation)

    def show_annotation(self, source: str | None) -> None:
        """Show which annotation the slide has."""
        self.path.set_path(source or "")
        outlines = source is not None and is_annotation_file(source)
        self.edit.setEnabled(outlines)
        slide, given = self.session.slide, self.session.annotation_bounds
        self.bounds.setVisible(slide is not None and slide.bounds is not None and (outlines or not source))
        self.bounds.setChecked(not str(source).lower().endswith(".xml") if given is None else given)
        self.note.say(
            " ".join(self.session.annotation_notes)
            if source
            else "None. With one, Compare shows how the teacher team corrects the soft labels here."
        )

    def _count_otherwise(self, scanned: bool) -> None:
        """Read the present file as counting from the other corner; without one, write the next so."""
        if self.session.annotation is None:
            self.session.annotation_bounds = scanned
        else:
            self.open(self.session.annotation, bounds=scanned)

    def open(self, path: str, bounds: bool | None = None) -> None:
        """Lay the annotation ``path`` over the slide, in place of the present one (see ``open_annotation``)."""
        slide, viewer = self.session.slide, self.session.viewer
        if slide is None:
            return
        from napari_kdseg.widgets.layers.annotation_masks import annotation_layer

        def show(layer: LayerTuple) -> None:
            data, options, _ = layer
            present = find(viewer, "annotation")
            if present is not None:
                viewer.layers.remove(present)
            viewer.add_labels(data, **options).contour = 2
            put_in_order(viewer)

        self.note.say("Reading …")
        in_background(lambda: annotation_layer(path, slide, bounds), show, self.note.warn)

    def edit_shapes(self) -> None:
        """Show the polygons of the present annotation as a Shapes layer."""
        slide, source, bounds = self.session.slide, self.session.annotation, self.session.annotation_bounds
        if slide is None or source is None:
            return

        def work() -> LayerTuple:
            from napari_kdseg.slides import read_annotations
            from napari_kdseg.widgets.layers.annotation_shapes import shapes_to_layer

            return shapes_to_layer(
                read_annotations(source, slide=slide, bounds=bounds), slide.mpp, name=SHAPES
            )

        self.note.say("Reading …")
        in_background(work, self._show_shapes, self.note.warn)

    def draw_shapes(self) -> None:
        """Add an empty layer for polygons and take up the pen."""
        slide = self.session.slide
        if slide is None:
            return
        from napari_kdseg.widgets.layers.annotation_shapes import shapes_to_layer

        self._show_shapes(shapes_to_layer([], slide.mpp, name=SHAPES))
        self.session.viewer.layers.selection.active.mode = "add_polygon"
        self.note.say("Click the corners, double-click to end. Then Save.")

    def _show_shapes(self, made: LayerTuple) -> None:
        data, options, _ = made
        viewer = self.session.viewer
        present = find(viewer, "shapes")
        if present is not None and not len(present.data):
            viewer.layers.remove(present)
        layer = viewer.layers.selection.active = viewer.add_shapes(data, **options)
        watch_shapes(layer)
        self.note.say(
            f"{len(data):,} shapes. Change them with napari's tools, then Save." if len(data) else ""
        )

    def _browse_save(self) -> None:
        slide = self.session.slide
        if slide is None:
            return
        folder = Path(last_folder("annotation"))
        start = folder / f"{Path(slide.name).stem}.geojson"
        path, chosen = QFileDialog.getSaveFileName(
            self, "Save annotations", str(start), ";;".join(SAVE_FORMATS), next(iter(SAVE_FORMATS))
        )
        if path:
            remember_folder("annotation", path)
            suffix, xml = SAVE_FORMATS.get(chosen, (".geojson", "asap"))
            self.save_to(path if is_written(path) else path + suffix, xml=xml)

    def save_to(self, path: str, *, xml: XmlFlavour = "asap") -> None:
        """Write the shapes of the selected layer, else of ours, to ``path``."""
        slide, layer, bounds = self.session.slide, self._layer_to_save(), self.session.annotation_bounds
        if slide is None:
            return
        if layer is None:
            self.note.warn(
                "There is nothing to save. Draw shapes, or select a layer of shapes or labels first."
            )
            return

        def work() -> str:
            from napari_kdseg.slides import write_annotations
            from napari_kdseg.widgets.layers.annotation_masks import labels_to_shapes
            from napari_kdseg.widgets.layers.annotation_shapes import layer_to_shapes

            shapes = (
                layer_to_shapes(layer, slide.mpp)
                if isinstance(layer, Shapes)
                else labels_to_shapes(layer, slide)
            )
            write_annotations(path, shapes, slide=slide, bounds=bounds, xml=xml, mpp=slide.mpp)
            return f"{len(shapes):,} shapes of {layer.name!r} saved in {Path(path).name}."

        def done(sentence: str) -> None:
            saved(layer)
            self.note.say(sentence)
            if layer.metadata.get(ROLE_KEY) == "shapes" and self.session.slide is slide:
                self.open(path, bounds)  # what was drawn is the annotation of this slide from now on

        self.note.say("Saving …")
        in_background(work, done, self.note.warn)

    def _layer_to_save(self) -> Layer | None:
        active = self.session.viewer.layers.selection.active
        if isinstance(active, Shapes | Labels):
            return active
        return find(self.session.viewer, "shapes") or find(self.session.viewer, "annotation")
