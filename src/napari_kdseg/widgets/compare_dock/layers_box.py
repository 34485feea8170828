"""The masks that lie over the slide: which are shown, how opaque, drawn in which way."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QGridLayout,
    QPushButton,
    QSlider,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_kdseg.widgets.keys import KEYS, with_key
from napari_kdseg.widgets.layers import colours, overlays
from napari_kdseg.widgets.parts.controls import combo, row, swatch
from napari_kdseg.widgets.views.stage import TITLES
from napari_kdseg.widgets.views.views import DRAWINGS, views_of

if TYPE_CHECKING:
    from napari_kdseg.widgets.state.session import Session

CORRECTED = {
    "mended_by": "who mended it",
    "confidence": "probability of the annotated class",
    "change": "change from the teacher's",
}
DRAWING_TIPS = {
    "none": "No masks: judge first",
    "outline": "Outlines in the colour of their source; along one edge the teacher's inside the student's",
    "fill": "Filled in the colours of the classes",
    "difference": "Only where teacher and student differ",
}


class LayersBox(QWidget):
    """A row a mask: shown or not, how opaque. Below, how masks are drawn."""

    def __init__(self, session: Session):
        super().__init__()
        self.session = session
        self.views = views_of(session)
        self.rows: dict[str, tuple[QCheckBox, QSlider, QSpinBox]] = {}
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._build_rows())
        layout.addWidget(self._build_corrected())
        layout.addWidget(self._build_drawing())
        session.overlays_changed.connect(self.mirror)
        session.overlays_restyled.connect(self.mirror)
        self.views.changed.connect(self.mirror)
        self.mirror()

    def _build_rows(self) -> QWidget:
        holder = QWidget()
        grid = QGridLayout(holder)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(2)
        for index, group in enumerate(overlays.GROUPS):
            key = f"Alt-{index + 1}"
            box, slider, number = QCheckBox(TITLES[group]), QSlider(Qt.Orientation.Horizontal), QSpinBox()
            box.setToolTip(with_key(KEYS[key].capitalize(), key))
            box.toggled.connect(partial(self._set_visible, group))
            number.setSuffix(" %")
            number.setButtonSymbols(QSpinBox.ButtonSymbols.NoButtons)
            number.setFixedWidth(58)
            for control in (slider, number):
                control.setRange(5, 100)
                control.setToolTip("Opacity (Alt+Up and Alt+Down for all)")
                control.valueChanged.connect(partial(self._set_opacity, group))
            for column, widget in enumerate((swatch(colours.SOURCES[group]), box, slider, number)):
                grid.addWidget(widget, index, column)
            self.rows[group] = (box, slider, number)
        grid.setColumnStretch(2, 1)
        return holder

    def _build_corrected(self) -> QWidget:
        self.corrected = combo(
            "What of the corrected soft label is shown; it is blank outside the annotation"
        )
        for role, text in CORRECTED.items():
            self.corrected.addItem(f"Corrected: {text}", role)
        self.corrected.activated.connect(
            lambda index: overlays.choose_corrected_view(self.session, self.corrected.itemData(index))
        )
        return self.corrected

    def _build_drawing(self) -> QWidget:
        self.drawings = QButtonGroup(self)
        made = []
        for number, drawing in enumerate(DRAWINGS):
            choice = QPushButton(drawing.capitalize())
            choice.setCheckable(True)
            choice.setToolTip(with_key(DRAWING_TIPS[drawing], "Alt-M"))
            choice.clicked.connect(partial(self.views.draw, drawing))
            self.drawings.addButton(choice, number)
            made.append(choice)
        return row(*made)

    def _set_visible(self, group: str, on: bool) -> None:
        layer = overlays.layer_of(self.session, group)
        if layer is not None and layer.visible != on:
            layer.visible = on

    def _set_opacity(self, group: str, percent: int) -> None:
        layer = overlays.layer_of(self.session, group)
        if layer is not None and round(100 * layer.opacity) != percent:
            overlays.set_opacity(self.session, group, percent)

    def mirror(self) -> None:
        """Show how the layers look now, whoever changed them."""
        for group, (box, slider, number) in self.rows.items():
            layer = overlays.layer_of(self.session, group)
            for control in (box, slider, number):
                control.setEnabled(layer is not None)
            kept = self.session.view_settings.opacity.get(group, 100)
            percent = kept if layer is None else round(layer.opacity * 100)
            box.setChecked(layer is not None and layer.visible)
            slider.setValue(percent)
            number.setValue(percent)
        self.corrected.setVisible(overlays.layer_of(self.session, "corrected") is not None)
        self.corrected.setCurrentIndex(list(CORRECTED).index(self.session.corrected_view))
        self.drawings.button(DRAWINGS.index(self.views.drawing)).setChecked(True)
        there = overlays.layer_of(self.session, "disagreement") is not None
        self.drawings.button(DRAWINGS.index("difference")).setEnabled(there)
