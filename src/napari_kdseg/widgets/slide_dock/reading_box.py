"""Which picture of a file is the slide, and what its numbers mean: shown, and chosen otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QDoubleSpinBox, QFormLayout, QWidget

from napari_kdseg.widgets.parts.controls import button, combo, row
from napari_kdseg.widgets.parts.note import Note

if TYPE_CHECKING:
    from napari_kdseg.slides import Slide
    from napari_kdseg.widgets.state.session import Session

KINDS = (("as the file says", None), ("RGB", "rgb"), ("channels", "channels"), ("grey", "grey"))


class ReadingBox(QWidget):
    """The picture (where a file has several), and what the numbers are taken for."""

    def __init__(self, session: Session):
        super().__init__()
        self._session = session
        self.series = combo("Which of the pictures in the file is the slide")
        self.series.activated.connect(self._choose_series)
        self.kind = combo("What the numbers of the file mean; your choice is kept beside the slide")
        for title, kind in KINDS:
            self.kind.addItem(title, kind)
        self.kind.activated.connect(lambda _index: self._give(self._white()))
        self.note = Note()
        self.white = QDoubleSpinBox()
        self.white.setRange(0.0, 2.0**32)
        self.white.setPrefix("white is ")
        self.white.setToolTip("The stored value that is white: 4095 of 12 bits, 65535 of 16")
        self.use = button("Use", "Take this value as white, and keep it beside the slide", self._give_white)
        self.white_row = row(self.white, self.use, stretch=0)
        self.form = QFormLayout(self)
        self.form.setContentsMargins(0, 0, 0, 0)
        self.form.addRow("Picture:", self.series)
        self.form.addRow("Read as:", self.kind)
        self.form.addRow(self.note)
        self.form.addRow(self.white_row)

    def show_slide(self, slide: Slide) -> None:
        """Show what was chosen, and offer the rest."""
        about = slide.metadata
        with QSignalBlocker(self.series), QSignalBlocker(self.kind):
            self.series.clear()
            for index, title in enumerate(about.pictures):
                largest = " (largest)" if index == about.default_series else ""
                self.series.addItem(f"{index + 1} of {len(about.pictures)}{largest}: {title}")
            self.series.setCurrentIndex(about.series)
            self.kind.setCurrentIndex(self.kind.findData(slide.asked.kind))
        self.form.setRowVisible(self.series, len(about.pictures) > 1)
        self.form.setRowVisible(self.kind, slide.reader != "synthetic")
        if about.doubt:
            self.note.warn(f"{slide.read_as}. Until you say it, the slide is shown but not predicted on.")
        else:
            self.note.say(slide.read_as)
        self.white.setDecimals(0 if (about.white or 255) >= 2 else 4)  # 1.0 is that of floating point
        self.white.setValue(about.white or 255.0)
        self.form.setRowVisible(
            self.white_row, bool(about.white and about.doubt) or slide.asked.white is not None
        )

    def _choose_series(self, index: int) -> None:
        self._session.show_series(index, on_failed=self.note.warn)

    def _white(self) -> float | None:
        slide = self._session.slide
        return None if slide is None else slide.asked.white

    def _give(self, white: float | None) -> None:
        self._session.give_reading(self.kind.currentData(), white, on_failed=self.note.warn)

    def _give_white(self) -> None:
        if self.white.value() > 0:
            self._give(self.white.value())
