"""Dock 4, Compare, answers: where do they differ, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_kdseg.widgets.compare_dock.classes_box import ClassesBox
from napari_kdseg.widgets.compare_dock.corrections_box import CorrectionsBox
from napari_kdseg.widgets.compare_dock.disagreement_box import DisagreementBox
from napari_kdseg.widgets.compare_dock.export_box import ExportBox
from napari_kdseg.widgets.compare_dock.layers_box import LayersBox
from napari_kdseg.widgets.compare_dock.views_box import ViewsBox
from napari_kdseg.widgets.layers import overlays
from napari_kdseg.widgets.parts.controls import heading
from napari_kdseg.widgets.parts.dock import Dock
from napari_kdseg.widgets.parts.note import Note

if TYPE_CHECKING:
    from napari.viewer import Viewer


class CompareDock(Dock):
    """What is seen of the masks, and what is known of how they differ: a box a question, one below the other."""

    def __init__(self, napari_viewer: Viewer):
        super().__init__(napari_viewer)
        session = self.session
        self.hint = Note()
        self.views = ViewsBox(session)
        self.layers = LayersBox(session)
        self.classes = ClassesBox(session)
        self.corrections = CorrectionsBox(session)
        self.disagreement = DisagreementBox(session)
        self.disagreement.mended.connect(self.corrections.show_counts)
        self.export = ExportBox(session)
        for box in (self.hint, self.views, self.layers, self.classes, self.corrections, self.disagreement):
            self.column.addWidget(box)
        self.column.addWidget(heading("For other programs"))
        self.column.addWidget(self.export)
        self.column.addStretch(1)
        session.overlays_changed.connect(self._show_hint)
        self._show_hint()
        self.disagreement.count()

    def _show_hint(self) -> None:
        nothing = all(overlays.layer_of(self.session, group) is None for group in overlays.GROUPS)
        self.hint.say(
            "Nothing to compare yet. Let 2 Models show teacher and student here." if nothing else ""
        )
