"""A path in a dock: typed, browsed for, or dropped."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QLineEdit, QToolButton, QWidget

from napari_kdseg.widgets.state.remembered import last_folder, remember_folder


class PathRow(QWidget):
    """A path that can be typed, browsed for, or dropped.

    Signals
    -------
    chosen(str)
        A path was given by any of the three ways.
    """

    chosen = Signal(str)

    def __init__(
        self,
        placeholder: str,
        *,
        folder: bool = False,
        patterns: str = "All files (*)",
        remember: str = "path",
    ):
        super().__init__()
        self.setAcceptDrops(True)
        self._folder, self._patterns, self._remember = folder, patterns, remember
        self.edit = QLineEdit()
        self.edit.setPlaceholderText(placeholder)
        self.edit.setToolTip(f"{placeholder}. Type a path, browse, or drop it here.")
        self.edit.returnPressed.connect(lambda: self.path() and self.chosen.emit(self.path()))
        browse = QToolButton()
        browse.setText("…")
        browse.setToolTip("Browse")
        browse.clicked.connect(self._browse)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.edit, 1)
        row.addWidget(browse)

    def path(self) -> str:
        """The path as it stands, or an empty string."""
        return self.edit.text().strip()

    def set_path(self, path: str | Path) -> None:
        """Show ``path`` without announcing it."""
        self.edit.setText(str(path))

    def _browse(self) -> None:
        start = self.path() or last_folder(self._remember)
        if self._folder:
            path = QFileDialog.getExistingDirectory(self, self.edit.placeholderText(), start)
        else:
            path, _ = QFileDialog.getOpenFileName(self, self.edit.placeholderText(), start, self._patterns)
        if path:
            self._take(path)

    def _take(self, path: str) -> None:
        remember_folder(self._remember, path)
        self.set_path(path)
        self.chosen.emit(path)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:  # noqa: D102
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:  # noqa: D102
        self._take(event.mimeData().urls()[0].toLocalFile())
