"""Where teacher and student differ, counted over the slide."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QGridLayout, QVBoxLayout, QWidget

from napari_kdseg.widgets.compare_dock.counts import count, counts_row
from napari_kdseg.widgets.layers import colours
from napari_kdseg.widgets.parts.controls import clear, heading
from napari_kdseg.widgets.parts.note import Note
from napari_kdseg.widgets.state.background import in_background

if TYPE_CHECKING:
    from napari_kdseg.widgets.state.session import Session


class DisagreementBox(QWidget):
    """Shares of the disagreement.

    Signals
    -------
    mended(dict)
        Who mended how much, by code: it is counted in the same pass.
    """

    mended = Signal(object)

    def __init__(self, session: Session):
        super().__init__()
        self.session = session
        self.note = Note()
        holder = QWidget()
        self.shares = QGridLayout(holder)
        self.shares.setContentsMargins(0, 0, 0, 0)
        self.shares.setColumnStretch(1, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (heading("Disagreement"), self.note, holder):
            layout.addWidget(widget)
        session.overlays_changed.connect(self.count)

    def count(self) -> None:
        """Count, off the GUI thread, on a level of the masks that is small enough."""
        path = self.session.masks_path()
        if path is None or not Path(path).exists():
            self.show_counts({"mended_by": {}, "disagreement": {}, "agreement": ""})
            return
        in_background(partial(count, path), self.show_counts, self.note.warn)

    def show_counts(self, counted: dict[str, Any]) -> None:
        """Show what :func:`~napari_kdseg.widgets.compare_dock.counts.count` found."""
        clear(self.shares)
        for index, (code, text) in enumerate(counted["disagreement"].items()):
            counts_row(self.shares, index, colours.DISAGREEMENT[code][1], *text)
        self.note.say(counted["agreement"])
        self.mended.emit(counted["mended_by"])
