"""The frame of every dock: a scrolling column that belongs to the session of its viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

from napari_kdseg.widgets.binding import session_of
from napari_kdseg.widgets.parts.questions import may_leave
from napari_kdseg.widgets.state.session import Session

if TYPE_CHECKING:
    from napari.viewer import Viewer


class Dock(QWidget):
    """A scrolling column: the frame of every dock.

    Parameters
    ----------
    viewer
        The napari viewer; what the dock shows belongs to that viewer's session.
    """

    def __init__(self, viewer: Viewer):
        super().__init__()
        self.session: Session = session_of(viewer)
        self.session.may_leave = may_leave
        self.setMinimumWidth(360)
        inner = QWidget()
        self.column = QVBoxLayout(inner)
        self.column.setContentsMargins(8, 8, 8, 8)
        self.column.setSpacing(6)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(inner)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(area)

    @property
    def viewer(self) -> Viewer:
        """The viewer of this dock's session."""
        return self.session.viewer
