"""What else a slide file holds: its properties, and the pictures of its label and of the whole glass.

A label may name the patient, and so may some properties: both stay hidden until a switch is turned, slide by slide.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QHeaderView,
    QLabel,
    QLineEdit,
    QTableWidget,
    QTableWidgetItem,
)

from napari_kdseg.widgets.parts.fold import Fold
from napari_kdseg.widgets.parts.note import Note
from napari_kdseg.widgets.slide_dock.thumbnail import to_pixmap
from napari_kdseg.widgets.state.background import in_background

if TYPE_CHECKING:
    from napari_kdseg.slides import Slide

PRIVATE = re.compile(
    r"patient|barcode|label|accession|birth|physician|operator|\buser|hospital|institution|name|date|time|"
    r"filename|description|comment|slide ?id|image ?id|study|specimen|container|uid|serial",
    re.IGNORECASE,
)
"""Properties that may tell who the patient is, or lead there."""

PICTURE_WIDTH, PICTURE_HEIGHT = 310, 220
LONGEST = 300


class SlidePictures(Fold):
    """Properties and associated pictures of the slide."""

    def __init__(self) -> None:
        super().__init__("Properties and pictures", open=False)
        self._slide: Slide | None = None
        self.private = QCheckBox("Show what may name the patient")
        self.private.setToolTip(
            "The label, the picture of the whole glass, names, dates and numbers of this slide"
        )
        self.private.toggled.connect(self._renew)
        self.search = QLineEdit()
        self.search.setPlaceholderText("Search the properties")
        self.search.setToolTip("Show only properties that hold these letters")
        self.search.setClearButtonEnabled(True)
        self.search.textChanged.connect(self._filter)
        self.table = QTableWidget(0, 2)
        self.table.setToolTip("What the file says of itself; select and copy")
        self.table.horizontalHeader().hide()
        self.table.verticalHeader().hide()
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setMinimumHeight(160)
        self.table.horizontalHeader().setSectionResizeMode(0, QHeaderView.ResizeMode.Interactive)
        self.table.horizontalHeader().setStretchLastSection(True)
        self.table.setColumnWidth(0, 150)
        self.note = Note()
        self.pictures: list[QLabel] = []
        for widget in (self.private, self.note, self.search, self.table):
            self.content.addWidget(widget)

    def show_slide(self, slide: Slide | None) -> None:
        """Show another slide, with the switch off."""
        self._slide = slide
        self.setVisible(slide is not None and bool(slide.properties or slide.associated))
        self.private.setChecked(False)
        self._renew()

    def _renew(self) -> None:
        for label in self.pictures:
            label.hide()
            label.deleteLater()
        self.pictures = []
        slide = self._slide
        if slide is None:
            return
        properties = {
            name: text
            for name, text in slide.properties.items()
            if self.private.isChecked() or not _private(name)
        }
        self.table.setRowCount(len(properties))
        for line, (name, text) in enumerate(sorted(properties.items())):
            for column, content in enumerate((name, text)):
                item = QTableWidgetItem(content if len(content) <= LONGEST else content[:LONGEST] + " …")
                item.setToolTip(item.text())
                self.table.setItem(line, column, item)
        self._filter(self.search.text())
        hidden = len(slide.properties) - len(properties)
        if self.private.isChecked():
            self.note.say("Reading …" if slide.associated else "")
            self._read_pictures(slide)
        else:
            what = [f"{len(slide.associated)} pictures"] if slide.associated else []
            what += [f"{hidden} properties"] if hidden else []
            self.note.say(f"Hidden: {' and '.join(what)}." if what else "")

    def _filter(self, letters: str) -> None:
        for line in range(self.table.rowCount()):
            texts = [self.table.item(line, column).text().lower() for column in (0, 1)]
            self.table.setRowHidden(line, not any(letters.lower() in text for text in texts))

    def _read_pictures(self, slide: Slide) -> None:
        def work() -> list[tuple[str, np.ndarray]]:
            return [(name, slide.read_associated(name)) for name in slide.associated]

        def show(read: list[tuple[str, np.ndarray]]) -> None:
            if self._slide is not slide or not self.private.isChecked():
                return
            self.note.say("")
            for name, pixels in read:
                label = QLabel()
                picture = to_pixmap(pixels).scaled(
                    PICTURE_WIDTH,
                    PICTURE_HEIGHT,
                    Qt.AspectRatioMode.KeepAspectRatio,
                    Qt.TransformationMode.SmoothTransformation,
                )
                label.setPixmap(picture)
                label.setToolTip(f"The {name} of this slide")
                self.content.addWidget(label)
                self.pictures.append(label)

        in_background(work, show, self.note.warn)


def _private(name: str) -> bool:
    return PRIVATE.search(name) is not None
