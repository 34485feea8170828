"""What a person says of a region: a verdict, a comment, undo."""

from __future__ import annotations

from functools import partial

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QGridLayout, QLineEdit, QPushButton, QVBoxLayout, QWidget

from napari_kdseg.comparison.regions.table import Compared
from napari_kdseg.comparison.review.marks import Mark, Verdict, in_words
from napari_kdseg.widgets.parts.controls import button, row
from napari_kdseg.widgets.review.keys import VERDICT_KEYS, key_tip

COLUMNS = 3


class MarkBox(QWidget):
    """Buttons for the verdicts, a line for a comment, undo and redo.

    Signals
    -------
    said(Verdict)
        A verdict was clicked.
    commented(str)
        The comment was finished.
    undone(), redone()
        The last mark is to be taken back, or given again.
    """

    said = Signal(object)
    commented = Signal(str)
    undone = Signal()
    redone = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.buttons: dict[Verdict, QPushButton] = {}
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        holder = QWidget()
        grid = QGridLayout(holder)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        for place, verdict in enumerate(VERDICT_KEYS):
            made = button("", "", partial(self.said.emit, verdict))
            made.setCheckable(True)
            self.buttons[verdict] = made
            grid.addWidget(made, *divmod(place, COLUMNS))
        self.undo = button("Undo", key_tip("Alt-Z"), self.undone.emit)
        self.redo = button("Redo", key_tip("Alt-Shift-Z"), self.redone.emit)
        grid.addWidget(row(self.undo, self.redo), *divmod(len(VERDICT_KEYS), COLUMNS))
        layout.addWidget(holder)
        self.comment = QLineEdit()
        self.comment.setPlaceholderText("Comment on this region")
        self.comment.setToolTip("Kept with the mark; also without one")
        self.comment.editingFinished.connect(lambda: self.commented.emit(self.comment.text()))
        layout.addWidget(self.comment)

    def name(self, about: Compared) -> None:
        """Name the verdicts after the two masks."""
        for verdict, made in self.buttons.items():
            words = in_words(verdict, about)
            made.setText((words[:1].upper() + words[1:]).removesuffix(" enough"))  # in a dock of 360 px
            made.setToolTip(key_tip(VERDICT_KEYS[verdict], words))

    def show_mark(self, mark: Mark | None) -> None:
        """Show what was said of the present region."""
        for verdict, made in self.buttons.items():
            made.setChecked(mark is not None and mark.mark == verdict)
        self.comment.setText("" if mark is None else mark.comment)

    def allow(self, on: bool, *, undo: bool = False, redo: bool = False) -> None:
        """Let a person mark, or not."""
        for made in (*self.buttons.values(), self.comment):
            made.setEnabled(on)
        self.undo.setEnabled(undo)
        self.redo.setEnabled(redo)
