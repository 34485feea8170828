"""How masks are held against one another: a button a view, and what that view can be told."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_kdseg.widgets.keys import KEYS, with_key
from napari_kdseg.widgets.layers.overlays import GROUPS, layer_of
from napari_kdseg.widgets.parts.controls import button, combo, row
from napari_kdseg.widgets.parts.note import Note
from napari_kdseg.widgets.views.stage import TITLES
from napari_kdseg.widgets.views.views import VIEWS, in_words, views_of

if TYPE_CHECKING:
    from napari_kdseg.widgets.state.session import Session

VIEW_KEYS = dict(zip(VIEWS, ("Alt-5", "Alt-6", "Alt-7", "Alt-8", "Alt-9", "Alt-0"), strict=True))
SIDES = {
    "lens": ("Outside the lens", "Inside the lens"),
    "curtain": ("Left of the divider", "Right of the divider"),
    "side by side": ("First pane", "Second pane", "Third pane"),
    "flicker": ("First", "Then"),
}
"""What the sides are in each view that has any."""


class ViewsBox(QWidget):
    """The buttons of the views, and the settings of the one that is shown."""

    def __init__(self, session: Session):
        super().__init__()
        self.session = session
        self.views = views_of(session)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._build_buttons())
        layout.addWidget(self._build_sides())
        self.missing = Note()
        self.bring_back = button("Bring back", "Show what is on disk of this slide's masks", self._bring_back)
        layout.addWidget(self.missing)
        layout.addWidget(self.bring_back)
        self.views.changed.connect(self.mirror)
        self.mirror()

    def _build_buttons(self) -> QWidget:
        holder, self.buttons = QWidget(), QButtonGroup(self)
        grid = QGridLayout(holder)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        for number, (view, key) in enumerate(VIEW_KEYS.items()):
            made = QPushButton(view.capitalize())
            made.setCheckable(True)
            made.setToolTip(with_key(KEYS[key].capitalize(), key))
            made.clicked.connect(partial(self.views.show, view))
            self.buttons.addButton(made, number)
            grid.addWidget(made, *divmod(number, 3))
        return holder

    def _build_sides(self) -> QWidget:
        self.sides = [combo("", *TITLES.values()) for _ in range(3)]
        self.sides[2].setItemText(list(TITLES).index(""), "No third")
        for index, choice in enumerate(self.sides):
            choice.setSizePolicy(
                QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed
            )  # three share the width
            choice.activated.connect(partial(self._choose, index))
        self.radius, self.changes = QSpinBox(), QDoubleSpinBox()
        self.radius.setRange(30, 400)
        self.radius.setSingleStep(10)
        self.radius.setSuffix(" px")
        self.radius.setToolTip("Radius of the lens")
        self.radius.valueChanged.connect(lambda value: self.views.set(radius=value))
        self.changes.setRange(0.5, 6.0)
        self.changes.setSingleStep(0.5)
        self.changes.setDecimals(1)
        self.changes.setSuffix(" /s")
        self.changes.setToolTip("Changes a second")
        self.changes.valueChanged.connect(lambda value: self.views.set(changes=value))
        self.settings = row(*self.sides, self.radius, self.changes)
        for choice in self.sides:
            self.settings.layout().setStretchFactor(choice, 1)
        for spin in (self.radius, self.changes):
            spin.setButtonSymbols(QSpinBox.ButtonSymbols.NoButtons)  # the wheel and the arrow keys do
            spin.setFixedWidth(64)
        return self.settings

    def _choose(self, side: int, index: int) -> None:
        self.views.choose_side(side, list(TITLES)[index])

    def _bring_back(self) -> None:
        self.session.refresh_masks()

    def mirror(self) -> None:
        """Show what the views are now, whoever changed them."""
        view, settings = self.views.view, self.session.view_settings
        self.buttons.button(VIEWS.index(view)).setChecked(True)
        words = SIDES.get(view, ())
        self.settings.setVisible(bool(words))
        for index, choice in enumerate(self.sides):
            choice.setVisible(index < len(words))
            choice.setToolTip(words[index] if index < len(words) else "")
            _show_quietly(choice, list(TITLES).index(settings.sides[index]))
        for name, shown_in in (("radius", "lens"), ("changes", "flicker")):
            spin = getattr(self, name)
            spin.setVisible(view == shown_in)
            spin.blockSignals(True)
            spin.setValue(getattr(settings, name))
            spin.blockSignals(False)
        nothing = all(layer_of(self.session, group) is None for group in GROUPS)  # the dock says so
        missing = "" if nothing else in_words(self.views.missing)
        self.missing.warn(missing)
        self.bring_back.setVisible(bool(missing) and self.session.masks_path() is not None)


def _show_quietly(choice: QComboBox, index: int) -> None:
    if choice.currentIndex() != index:
        choice.setCurrentIndex(index)  # activated() is of people alone
