"""Small Qt pieces the docks are made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtCore import QSettings, QSize, Qt, Signal
from qtpy.QtGui import QColor, QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_kdseg.widgets.state.session import Session, session_of

WARNING_STYLE = "color: #D55E00;"


class Dock(QWidget):
    """A scrolling column: the frame of every dock.

    Parameters
    ----------
    viewer
        The napari viewer; what the dock shows belongs to that viewer's session.
    """

    def __init__(self, viewer: Any):
        super().__init__()
        self.session: Session = session_of(viewer)
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
    def viewer(self) -> Any:
        """The viewer of this dock's session."""
        return self.session.viewer


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

    def resizeEvent(self, event: Any) -> None:  # noqa: D102
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

    def dragEnterEvent(self, event: Any) -> None:  # noqa: D102
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:  # noqa: D102
        self._take(event.mimeData().urls()[0].toLocalFile())


def settings() -> QSettings:
    """Small things remembered between sessions: last folders, recent slides."""
    return QSettings("napari-kdseg", "napari-kdseg")


def last_folder(name: str) -> str:
    """The folder last used for ``name``, or the home folder."""
    return str(settings().value(f"folders/{name}", str(Path.home())))


def remember_folder(name: str, path: str) -> None:
    """Remember the folder of ``path`` for ``name``."""
    settings().setValue(f"folders/{name}", str(Path(path).parent))


def heading(text: str) -> QLabel:
    """A section heading."""
    label = QLabel(f"<b>{text}</b>")
    label.setContentsMargins(0, 6, 0, 0)
    return label


def button(text: str, tooltip: str, action: Callable[[], Any]) -> QPushButton:
    """A push button with its tooltip, calling ``action`` without arguments."""
    made = QPushButton(text)
    made.setToolTip(tooltip)
    made.clicked.connect(lambda _checked=False: action())
    return made


class Fold(QWidget):
    """A section that folds to its title. Unlike superqt's, it gives its content whatever height that comes to need."""

    def __init__(self, title: str, *, open: bool = True):
        super().__init__()
        self.toggle = QToolButton()
        self.toggle.setText(title)
        self.toggle.setCheckable(True)
        self.toggle.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.toggle.setStyleSheet("font-weight: bold; background: transparent; border: none;")
        self.body = QWidget()
        self.content = QVBoxLayout(self.body)
        self.content.setContentsMargins(4, 2, 0, 2)
        self.content.setSpacing(4)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.toggle)
        layout.addWidget(self.body)
        self.toggle.toggled.connect(self.open)
        self.open(open)

    def open(self, is_open: bool) -> None:
        """Unfold, or fold to the title."""
        self.toggle.setChecked(is_open)
        self.toggle.setArrowType(Qt.ArrowType.DownArrow if is_open else Qt.ArrowType.RightArrow)
        self.body.setVisible(is_open)


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


def clear(layout: Any) -> None:
    """Remove and delete everything in ``layout``."""
    while layout.count():
        widget = layout.takeAt(0).widget()
        if widget is not None:
            widget.hide()
            widget.deleteLater()


def duration(seconds: float) -> str:
    """Put seconds into words of the size people use."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
