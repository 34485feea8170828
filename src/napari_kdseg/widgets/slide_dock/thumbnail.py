"""The whole slide in the dock, with a rectangle where the canvas looks; a click goes there."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QImage, QMouseEvent, QPainter, QPaintEvent, QPen, QPixmap
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_kdseg.widgets.layers.colours import VERMILION

HEIGHT = 190
SMALLEST = 9.0
"""Pixels below which the rectangle becomes a cross, so that it can still be seen."""


class Thumbnail(QWidget):
    """A picture of the whole slide.

    Signals
    -------
    went(float, float)
        A point was clicked or dragged to: (y, x) as shares of the slide.
    """

    went = Signal(float, float)

    def __init__(self) -> None:
        super().__init__()
        self._picture: QPixmap | None = None
        self._view: tuple[float, float, float, float] | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setCursor(Qt.CursorShape.CrossCursor)
        self.setToolTip("The whole slide; the rectangle is what you see. Click or drag to go there.")

    def set_picture(self, pixels: np.ndarray | None) -> None:
        """Show ``pixels``, uint8 ``[h, w, 3]``, or nothing."""
        self._picture = None if pixels is None else to_pixmap(pixels)
        self.setVisible(pixels is not None)
        self.update()

    def set_view(self, y: float, x: float, height: float, width: float) -> None:
        """Draw the rectangle around what is on screen, all four as shares of the slide."""
        view = (y, x, height, width)
        if view != self._view:
            self._view = view
            self.update()

    def sizeHint(self) -> QSize:  # noqa: D102
        return QSize(200, HEIGHT)

    def picture_rectangle(self) -> QRectF:
        """Where the picture lies in the widget: as large as it can be, in the middle."""
        if self._picture is None:
            return QRectF()
        size = self._picture.size().scaled(self.size(), Qt.AspectRatioMode.KeepAspectRatio)
        return QRectF(
            (self.width() - size.width()) / 2,
            (self.height() - size.height()) / 2,
            size.width(),
            size.height(),
        )

    def paintEvent(self, _event: QPaintEvent) -> None:  # noqa: D102
        if self._picture is None:
            return
        frame = self.picture_rectangle()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.drawPixmap(frame, self._picture, QRectF(self._picture.rect()))
        if self._view is not None:
            y, x, height, width = self._view
            seen = QRectF(
                frame.x() + x * frame.width(),
                frame.y() + y * frame.height(),
                width * frame.width(),
                height * frame.height(),
            )
            painter.setClipRect(frame)
            for colour, thickness in ((QColor("white"), 4), (QColor(VERMILION), 2)):
                painter.setPen(QPen(colour, thickness))
                if max(seen.width(), seen.height()) < SMALLEST:
                    middle = seen.center()
                    painter.drawLine(middle - QPointF(SMALLEST, 0), middle + QPointF(SMALLEST, 0))
                    painter.drawLine(middle - QPointF(0, SMALLEST), middle + QPointF(0, SMALLEST))
                else:
                    painter.drawRect(seen.intersected(frame.adjusted(1, 1, -1, -1)))
        painter.end()

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: D102
        self._go(event)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: D102
        self._go(event)

    def _go(self, event: QMouseEvent) -> None:
        frame = self.picture_rectangle()
        if frame.isEmpty() or not event.buttons() & Qt.MouseButton.LeftButton:
            return
        at = event.position()
        y = (at.y() - frame.y()) / frame.height()
        x = (at.x() - frame.x()) / frame.width()
        self.went.emit(min(max(y, 0.0), 1.0), min(max(x, 0.0), 1.0))


def to_pixmap(pixels: np.ndarray) -> QPixmap:
    """Return uint8 ``[h, w, 3]`` as a pixmap of its own."""
    pixels = np.ascontiguousarray(pixels)
    height, width = pixels.shape[:2]
    return QPixmap.fromImage(
        QImage(pixels.data, width, height, 3 * width, QImage.Format.Format_RGB888).copy()
    )
