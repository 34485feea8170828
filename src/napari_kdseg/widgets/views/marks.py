"""What lies over the canvas while masks are compared: names, the curtain's divider, the ring of the lens.

They are Qt widgets, not drawn into the picture: they can be taken hold of, and no screenshot of the canvas has them.
"""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, QPoint, QRectF, Qt, Signal
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QLabel, QWidget

GRIP = 22
"""Width of the divider's grip, in pixels: what a mouse takes hold of."""


class CanvasEvents(QObject):
    """The size and the mouse of a canvas, as signals.

    Parameters
    ----------
    canvas
        Its widget.
    parent
        Owner of this object.

    Signals
    -------
    resized(), moved(float, float), left()
        The canvas has another size; the cursor is at (x, y) of it, with any button; the cursor is elsewhere.
    """

    resized = Signal()
    moved = Signal(float, float)
    left = Signal()

    def __init__(self, canvas: QWidget, parent: QObject):
        super().__init__(parent)
        canvas.installEventFilter(self)

    def eventFilter(self, _canvas: QObject, event: QEvent) -> bool:  # noqa: D102
        if event.type() == QEvent.Type.Resize:
            self.resized.emit()
        elif event.type() == QEvent.Type.MouseMove and isinstance(event, QMouseEvent):
            self.moved.emit(event.position().x(), event.position().y())
        elif event.type() == QEvent.Type.Leave:
            self.left.emit()
        return False


class Tag(QLabel):
    """A name on the canvas, with the colour that stands for it; the mouse goes through it."""

    def __init__(self, canvas: QWidget):
        super().__init__(canvas)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)

    def say(self, text: str, colour: str) -> None:
        """Show ``text``."""
        self.setStyleSheet(
            "background: rgba(20, 20, 20, 200); color: white; padding: 3px 8px;"
            f"border: none; border-left: 5px solid {colour};"
        )
        self.setText(text)
        self.adjustSize()
        self.show()
        self.raise_()

    def put(self, x: int, y: int) -> None:
        """Move the left upper corner to (x, y), or as near as there is room on the canvas."""
        canvas = self.parentWidget()
        room = canvas.width() - self.width(), canvas.height() - self.height()
        self.move(max(0, min(x, room[0])), max(0, min(y, room[1])))


class Divider(QWidget):
    """A vertical line over the canvas that can be dragged.

    Signals
    -------
    dragged(float)
        It is at this share of the canvas's width.
    """

    dragged = Signal(float)

    def __init__(self, canvas: QWidget):
        super().__init__(canvas)
        self.setCursor(Qt.CursorShape.SplitHCursor)
        self.setToolTip("Drag to uncover one mask or the other")
        self.resize(GRIP, canvas.height())

    def put(self, share: float) -> int:
        """Move to ``share`` of the canvas's width; return the x of the line."""
        canvas = self.parentWidget()
        x = round(share * canvas.width())
        self.setGeometry(x - GRIP // 2, 0, GRIP, canvas.height())
        return x

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: D102
        if event.buttons() & Qt.MouseButton.LeftButton:
            x = self.mapToParent(event.position().toPoint()).x()
            self.dragged.emit(min(1.0, max(0.0, x / max(1, self.parentWidget().width()))))

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: D102
        event.accept()  # the slide stays where it is

    def paintEvent(self, _event: QPaintEvent) -> None:  # noqa: D102
        pen = QPainter(self)
        pen.setRenderHint(QPainter.RenderHint.Antialiasing)
        middle, height = self.width() // 2, self.height()
        pen.fillRect(middle - 2, 0, 4, height, QColor(20, 20, 20, 160))
        pen.fillRect(middle - 1, 0, 2, height, QColor("white"))
        pen.setPen(QPen(QColor(20, 20, 20), 1))
        pen.setBrush(QColor("white"))
        pen.drawEllipse(QRectF(1, height / 2 - GRIP / 2 + 1, GRIP - 2, GRIP - 2))
        pen.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, "\u25c2\u25b8")


class Ring(QWidget):
    """The rim of the lens; the mouse goes through it."""

    def __init__(self, canvas: QWidget):
        super().__init__(canvas)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)

    def put(self, centre: QPoint, radius: int) -> None:
        """Move to ``centre``."""
        self.setGeometry(centre.x() - radius - 2, centre.y() - radius - 2, 2 * radius + 4, 2 * radius + 4)
        self.show()

    def paintEvent(self, _event: QPaintEvent) -> None:  # noqa: D102
        pen = QPainter(self)
        pen.setRenderHint(QPainter.RenderHint.Antialiasing)
        rim = QRectF(self.rect()).adjusted(2, 2, -2, -2)
        for colour, width in ((QColor(20, 20, 20, 200), 4), (QColor("white"), 2)):
            pen.setPen(QPen(colour, width))
            pen.drawEllipse(rim)
