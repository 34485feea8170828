"""The legend of the classes: their colours, which of them are drawn, one of them alone."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QColorDialog,
    QGridLayout,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_kdseg.widgets.layers import overlays
from napari_kdseg.widgets.parts.controls import button, clear, heading, row

if TYPE_CHECKING:
    from napari_kdseg.widgets.state.session import Session


class ClassesBox(QWidget):
    """A row a class of the masks that are shown; hidden while there is none."""

    def __init__(self, session: Session):
        super().__init__()
        self.session = session
        self.rows: dict[str, tuple[QToolButton, QCheckBox, QToolButton]] = {}
        holder = QWidget()
        self._grid = QGridLayout(holder)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setVerticalSpacing(2)
        self._grid.setColumnStretch(1, 1)
        self.safe = button(
            "Safe colours",
            "Colours that colour-blind people can tell apart, one a class (Okabe and Ito)",
            self._safe,
        )
        self.own = button("Their own", "The colours that the masks bring", self._own)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(heading("Classes"))
        layout.addWidget(holder)
        layout.addWidget(row(self.safe, self.own))
        session.overlays_changed.connect(self.mirror)
        session.overlays_restyled.connect(self.mirror)
        self.mirror()

    def mirror(self) -> None:
        """Show the classes as they are drawn now."""
        classes = overlays.classes_of(self.session)
        if list(classes) != list(self.rows):
            self._rebuild(list(classes))
        for name, colour in classes.items():
            picture, shown, only = self.rows[name]
            pixmap = QPixmap(14, 14)
            pixmap.fill(QColor(colour))
            picture.setIcon(QIcon(pixmap))
            shown.setChecked(name not in self.session.hidden_classes)
            only.setVisible(len(classes) > 1)
        self.setVisible(bool(classes))

    def _rebuild(self, names: list[str]) -> None:
        clear(self._grid)
        self.rows.clear()
        for index, name in enumerate(names):
            picture, shown, only = QToolButton(), QCheckBox(name), QToolButton()
            picture.setToolTip(f"Choose the colour of {name}; it is kept")
            picture.clicked.connect(partial(self._ask_colour, name))
            shown.setToolTip(f"Draw {name}, or leave it out")
            shown.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            shown.toggled.connect(partial(self._on_toggled, name))
            only.setText("only")
            only.setToolTip(f"Draw {name} alone; once more, draw all")
            only.clicked.connect(lambda _checked, name=name: overlays.only_class(self.session, name))
            for column, widget in enumerate((picture, shown, only)):
                self._grid.addWidget(widget, index, column)
            self.rows[name] = (picture, shown, only)

    def _on_toggled(self, name: str, on: bool) -> None:
        if on == (name in self.session.hidden_classes):
            overlays.show_class(self.session, name, on)

    def _ask_colour(self, name: str, _checked: bool = False) -> None:
        present = QColor(overlays.classes_of(self.session)[name])
        chosen = QColorDialog.getColor(present, self, f"Colour of {name}")
        if chosen.isValid():
            overlays.colour_class(self.session, name, chosen.name())

    def _safe(self) -> None:
        overlays.use_safe_colours(self.session)

    def _own(self) -> None:
        for name in self.rows:
            overlays.colour_class(self.session, name, None)
