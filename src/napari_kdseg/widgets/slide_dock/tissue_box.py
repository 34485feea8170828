"""Tissue on the slide, in the dock: found, adjusted, painted on, kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QDoubleSpinBox, QFormLayout, QMessageBox, QSpinBox, QWidget

from napari_kdseg.widgets.layers.tissue_layer import (
    forget_painting,
    hide_tissue,
    paint_tissue,
    painted,
    show_tissue,
    shown_tissue,
)
from napari_kdseg.widgets.parts.controls import button, row
from napari_kdseg.widgets.parts.fold import Fold
from napari_kdseg.widgets.parts.note import Note
from napari_kdseg.widgets.state.background import in_background

if TYPE_CHECKING:
    from napari_kdseg.slides import Slide, TissueMask
    from napari_kdseg.widgets.state.session import Session

SETTLE_MS = 250
"""After the last change of a setting, the mask is computed anew."""


class TissueBox(Fold):
    """Find the tissue; say where it is wrong; keep it for networks and training to use."""

    def __init__(self, session: Session):
        super().__init__("Tissue", open=False)
        self.session = session
        self.find = button(
            "Find tissue", "Otsu's threshold on the saturation of colour, at low power", self.compute
        )
        self.hide_mask = button(
            "Hide", "Take the tissue layer away; what was kept stays kept", self._ask_and_hide
        )
        self.threshold = QDoubleSpinBox()
        self.threshold.setDecimals(3)
        self.threshold.setSingleStep(0.005)
        self.threshold.setSpecialValueText("automatic")
        self.threshold.setToolTip(
            "Colour saturation (fluorescence: intensity) above which it is tissue; 0 is automatic"
        )
        self.piece, self.hole = QSpinBox(), QSpinBox()
        for box, tip in (
            (self.piece, "Smaller pieces are dust and left out"),
            (self.hole, "Smaller holes count as tissue, such as the lumen of a gland"),
        ):
            box.setRange(-1, 100_000_000)
            box.setSpecialValueText("automatic")
            box.setSuffix(" µm²")
            box.setGroupSeparatorShown(True)
            box.setStepType(QSpinBox.StepType.AdaptiveDecimalStepType)
            box.setToolTip(tip)
        self.form = QWidget()
        layout = QFormLayout(self.form)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addRow("Threshold", self.threshold)
        layout.addRow("Smallest piece", self.piece)
        layout.addRow("Smallest hole", self.hole)
        self.note = Note()
        self.paint = button(
            "Correct by hand", "Paint tissue with napari's brush; erase with the eraser (key 1)", self._paint
        )
        self.keep = button(
            "Keep",
            "Save beside the slide: networks and training use it instead of finding tissue",
            self._keep,
        )
        self.forget = button(
            "Forget", "Remove what was kept; tissue is found automatically again", self._forget
        )
        self.edits = row(self.paint, self.keep, self.forget)
        for widget in (row(self.find, self.hide_mask), self.form, self.note, self.edits):
            self.content.addWidget(widget)
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(SETTLE_MS)
        self._later.timeout.connect(self.compute)
        for box in (self.threshold, self.piece, self.hole):
            box.valueChanged.connect(lambda _value: self._later.start())

    def show_slide(self, slide: Slide | None) -> None:
        """Start anew for another slide; a mask that was kept for it is found."""
        self.setVisible(slide is not None)
        self._later.stop()
        self._show_edits(False)
        self._fill(None, None, None)
        if slide is None:
            return
        self.threshold.setRange(0.0, 1.0 if slide.brightfield else 65535.0)
        self.piece.setEnabled(slide.mpp is not None)
        self.hole.setEnabled(slide.mpp is not None)
        self.note.say("Not looked for yet. Networks find it themselves and skip the glass.")
        self._look_for_kept(slide)

    def compute(self) -> None:
        """Find the tissue with the settings as they are, and show it."""
        slide = self.session.slide
        if slide is None:
            return
        self._later.stop()
        if not self._may_lose("Finding tissue anew replaces what you painted by hand. Replace it?"):
            return
        options: dict[str, Any] = {}
        if self.threshold.value() > 0:
            options["threshold"] = self.threshold.value()
        if slide.mpp is not None and self.piece.value() >= 0:
            options["min_piece_um2"] = self.piece.value()
        if slide.mpp is not None and self.hole.value() >= 0:
            options["min_hole_um2"] = self.hole.value()

        def work() -> TissueMask:
            from napari_kdseg.slides import tissue_mask

            return tissue_mask(slide, **options)

        self.note.say("Looking for tissue …")
        in_background(work, lambda found: self._show(slide, found), self.note.warn)

    def _may_lose(self, question: str) -> bool:
        """Ask before what was painted by hand, and not kept, is lost."""
        if not painted(self.session.viewer):
            return True
        return bool(QMessageBox.question(self, "Tissue", question) == QMessageBox.StandardButton.Yes)

    def _look_for_kept(self, slide: Slide) -> None:
        def work() -> TissueMask | None:
            from napari_kdseg.slides.tissue.kept import kept_tissue

            return kept_tissue(slide)

        def show(found: TissueMask | None) -> None:
            if found is not None and self.session.slide is slide:
                self._fill(found.threshold, found.min_piece_um2, found.min_hole_um2)
                self._show(slide, found)

        in_background(work, show, self.note.warn)

    def _show(self, slide: Slide, found: TissueMask) -> None:
        if self.session.slide is not slide or self.session.closed:
            return
        show_tissue(self.session.viewer, found, slide)
        self._show_edits(True)
        self.note.say(describe_tissue(slide, found))

    def _paint(self) -> None:
        paint_tissue(self.session.viewer)
        self.note.say(
            "Paint tissue on the slide; key 1 erases, key 2 paints again, and holding Space moves. Then Keep."
        )

    def _keep(self) -> None:
        slide, mask = self.session.slide, shown_tissue(self.session.viewer)
        if slide is None or mask is None:
            return

        def work() -> str:
            from napari_kdseg.slides.tissue.kept import keep_tissue

            return f"{describe_tissue(slide, mask)} Kept in {keep_tissue(slide, mask).name}."

        def kept(sentence: str) -> None:
            forget_painting(self.session.viewer)
            self.note.say(sentence)

        in_background(work, kept, self.note.warn)

    def _forget(self) -> None:
        slide = self.session.slide
        if slide is None:
            return

        def work() -> None:
            from napari_kdseg.slides.tissue.kept import keep_tissue

            keep_tissue(slide, None)

        def done(_nothing: None) -> None:
            self._hide()
            self.note.say("Forgotten. Tissue is found automatically where it is needed.")

        in_background(work, done, self.note.warn)

    def _ask_and_hide(self) -> None:
        if self._may_lose("What you painted by hand is not kept yet and goes with the layer. Hide it?"):
            self._hide()

    def _hide(self) -> None:
        hide_tissue(self.session.viewer)
        self._show_edits(False)

    def _show_edits(self, shown: bool) -> None:
        self.edits.setVisible(shown)
        self.hide_mask.setEnabled(shown)

    def _fill(self, threshold: float | None, piece: float | None, hole: float | None) -> None:
        for box, value in ((self.threshold, threshold), (self.piece, piece), (self.hole, hole)):
            box.blockSignals(True)
            box.setValue(box.minimum() if value is None else type(box.value())(value))
            box.blockSignals(False)


def describe_tissue(slide: Slide, found: TissueMask) -> str:
    """Return how much tissue there is, and how it was told from glass."""
    size = ""
    if slide.size_um is not None:
        size = f", {found.fraction * math.prod(slide.size_um) / 1e6:.3g} mm²"
    how = "as corrected" if found.edited else f"threshold {found.threshold:.3g}"
    least = f", pieces from {found.min_piece_um2:,.0f} µm²" if found.min_piece_um2 else ""
    return f"{100 * found.fraction:.0f} % of the slide is tissue{size} ({how}{least})."
