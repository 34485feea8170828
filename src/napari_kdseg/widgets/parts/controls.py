"""Controls of the docks, each made in one line."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtGui import QColor, QPixmap
from qtpy.QtWidgets import QCheckBox, QComboBox, QHBoxLayout, QLabel, QLayout, QPushButton, QWidget


def heading(text: str) -> QLabel:
    """A section heading."""
    label = QLabel(f"<b>{text}</b>")
    label.setContentsMargins(0, 6, 0, 0)
    return label


def button(text: str, tooltip: str, action: Callable[[], object]) -> QPushButton:
    """A push button with its tooltip, calling ``action`` without arguments."""
    made = QPushButton(text)
    made.setToolTip(tooltip)
    made.clicked.connect(lambda _checked=False: action())
    return made


def bounds_box() -> QCheckBox:
    """A box to tick for outlines that count from the corner of the scanned area; hidden where there is none."""
    made = QCheckBox("Outlines count from the scanned area")
    made.setToolTip(
        "This slide says which part of it was scanned. QuPath shows that part only, and counts from its corner"
    )
    made.hide()
    return made


def combo(tooltip: str, *items: str) -> QComboBox:
    """A drop-down list that shortens long entries instead of widening its dock."""
    made = QComboBox()
    made.setToolTip(tooltip)
    made.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    made.setMinimumContentsLength(8)
    made.addItems(items)
    return made


def row(*widgets: QWidget, stretch: int | None = None) -> QWidget:
    """Put widgets side by side."""
    holder = QWidget()
    layout = QHBoxLayout(holder)
    layout.setContentsMargins(0, 0, 0, 0)
    for index, widget in enumerate(widgets):
        layout.addWidget(widget, 1 if index == stretch else 0)
    return holder


def swatch(colour: str, size: int = 14) -> QLabel:
    """A small square of one colour."""
    label = QLabel()
    pixmap = QPixmap(size, size)
    pixmap.fill(QColor(colour))
    label.setPixmap(pixmap)
    label.setFixedSize(size, size)
    return label


def clear(layout: QLayout) -> None:
    """Remove and delete everything in ``layout``."""
    while layout.count():
        widget = layout.takeAt(0).widget()
        if widget is not None:
            widget.hide()
            widget.deleteLater()
