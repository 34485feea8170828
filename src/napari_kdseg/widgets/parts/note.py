"""Text in a dock that wraps, and turns into a warning."""

from __future__ import annotations

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QLabel, QSizePolicy

from napari_kdseg.colours import VERMILION, as_hex

WARNING_STYLE = f"color: {as_hex(VERMILION)};"


class Note(QLabel):
    """A wrapping line of text that can turn into a warning; hidden while it has nothing to say."""

    def __init__(self, text: str = ""):
        super().__init__()
        self.setWordWrap(True)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        self.say(text)

    def minimumSizeHint(self) -> QSize:
        """As high as the text is at this width: a scroll area would squeeze it to one line otherwise."""
        return QSize(0, self.heightForWidth(max(self.width(), 150)))

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: D102
        super().resizeEvent(event)
        if event.oldSize().width() != event.size().width():
            self.updateGeometry()

    def say(self, text: str) -> None:
        """Show ``text`` in the ordinary colour."""
        self._show(text, "")

    def warn(self, text: str) -> None:
        """Show ``text`` as a warning."""
        self._show(text, WARNING_STYLE)

    def _show(self, text: str, style: str) -> None:
        self.setStyleSheet(style)
        self.setText(text)
        self.setVisible(bool(text))
