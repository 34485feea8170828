"""The size of a slide's pixels: shown, corrected, and asked for where the file does not say it.

It is never guessed: what the objective or the scanner suggest is put into the box and counts when a person presses Use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QDoubleSpinBox, QVBoxLayout, QWidget

from napari_kdseg.slides.scale import PLAUSIBLE_MPP
from napari_kdseg.widgets.parts.controls import button, combo, row
from napari_kdseg.widgets.parts.note import Note

if TYPE_CHECKING:
    from napari_kdseg.slides import Slide

SCANNERS = (
    ("Aperio AT2, 40x", 0.252),
    ("Aperio AT2, 20x", 0.504),
    ("Aperio GT 450, 40x", 0.263),
    ("Hamamatsu NanoZoomer, 40x", 0.23),
    ("Hamamatsu NanoZoomer, 20x", 0.46),
    ("Leica SCN400, 40x", 0.25),
    ("Leica SCN400, 20x", 0.50),
    ("Philips UFS, 40x", 0.25),
    ("3DHISTECH Pannoramic, 40x", 0.243),
    ("Ventana DP 200, 40x", 0.2325),
    ("Ventana DP 200, 20x", 0.465),
)
"""What these scanners usually write (µm per pixel). Help for a person who knows the scanner, no more."""


class ScaleBox(QWidget):
    """Enter micrometres per pixel.

    Signals
    -------
    given(float)
        A person said how large a pixel is.
    """

    given = Signal(float)

    def __init__(self) -> None:
        super().__init__()
        self.note = Note()
        self.change = button("Correct the scale …", "If the file is wrong about it", self._open)
        self.mpp = QDoubleSpinBox()
        self.mpp.setDecimals(4)
        self.mpp.setRange(0.0, PLAUSIBLE_MPP[1])
        self.mpp.setSingleStep(0.01)
        self.mpp.setSpecialValueText("µm per pixel?")
        self.mpp.setSuffix(" µm per pixel")
        self.mpp.setToolTip(
            "Side of one pixel of the scan. It is printed in the scanner's export, or ask who scanned it."
        )
        self.use = button(
            "Use", "Take this scale, and keep it beside the slide for the next time", self._give
        )
        self.scanners = combo("What common scanners usually write; choose only what you know to be true")
        self.scanners.addItem("Typical scanners …", None)
        for name, mpp in SCANNERS:
            self.scanners.addItem(f"{name}: {mpp:g} µm", mpp)
        self.scanners.activated.connect(self._take_scanner)
        self.mpp.valueChanged.connect(lambda value: self.use.setEnabled(value > 0))
        self.entry = QWidget()
        column = QVBoxLayout(self.entry)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(row(self.mpp, self.use, stretch=0))
        column.addWidget(self.scanners)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        self.change_row = row(self.change, QWidget(), stretch=1)
        for widget in (self.note, self.change_row, self.entry):
            outer.addWidget(widget)

    def show_slide(self, slide: Slide) -> None:
        """Ask for the scale, or offer to correct it."""
        missing = slide.mpp is None
        self.entry.setVisible(missing)
        self.change_row.setVisible(not missing)
        self.scanners.setCurrentIndex(0)
        power = slide.objective_power
        if slide.mpp is not None:
            self.mpp.setValue(slide.mpp[1])
            self.note.say(_given(slide))
            return
        self.mpp.setValue(10 / power if power else 0.0)
        self.use.setEnabled(bool(power))
        hint = f" Its objective was {power:g}x, which often means {10 / power:g} µm." if power else ""
        said = slide.scale_doubt or "This file does not say how large its pixels are."
        self.note.warn(
            f"{said}{hint} Give it, and lengths are in µm and networks see "
            "the magnification they were trained at. Until then lengths are in pixels."
        )

    def _open(self) -> None:
        self.entry.setVisible(not self.entry.isVisible())

    def _take_scanner(self, index: int) -> None:
        mpp = self.scanners.itemData(index)
        if mpp:
            self.mpp.setValue(mpp)

    def _give(self) -> None:
        if self.mpp.value() > 0:
            self.given.emit(self.mpp.value())


def _given(slide: Slide) -> str:
    """Return what a person and the file say of the scale, where they differ."""
    if slide.mpp == slide.metadata.mpp:
        return ""
    file = slide.metadata.mpp
    return "You gave this scale; the file " + ("has none." if file is None else f"says {file[1]:.4g} µm.")
