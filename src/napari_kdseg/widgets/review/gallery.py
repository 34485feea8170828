"""The gallery: a row of equal crops a region, worst first; only rows on screen are read and drawn."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QModelIndex, QPersistentModelIndex, QRect, QRectF, QSize, Qt, QTimer
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPalette, QPen, QResizeEvent
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QListView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QWidget,
)

from napari_kdseg.colours import VERMILION, as_hex
from napari_kdseg.comparison.regions.table import Region
from napari_kdseg.comparison.review.marks import in_words
from napari_kdseg.widgets.parts.controls import clear
from napari_kdseg.widgets.review.crops import SIDE, MaskPanel, Square, square_around
from napari_kdseg.widgets.review.loader import CropLoader, Read
from napari_kdseg.widgets.review.model import RegionModel
from napari_kdseg.widgets.review.wording import area_of, classes_of

GAP = 3
"""Pixels between two crops."""
SCROLLED_MS = 80
"""After which crops are read where one has scrolled to: the canvas, which often flies at the same time, comes first."""
TICK = 0.12
"""Length of the ticks at the corners of a region's box, against the side of a crop."""
NICE = (1, 2, 5)


class Titles(QWidget):
    """What each column of the gallery shows, over it."""

    def __init__(self, gallery: Gallery):
        super().__init__()
        self._row = QHBoxLayout(self)
        self._row.setContentsMargins(GAP, 0, GAP + gallery.verticalScrollBar().sizeHint().width(), 0)
        self._row.setSpacing(GAP)

    def name(self, masks: Sequence[MaskPanel]) -> None:
        """Name the slide and these masks, each underlined in its colour."""
        clear(self._row)
        self._row.addWidget(QLabel("slide"), 1)
        for mask in masks:
            label = QLabel(mask.title)
            label.setStyleSheet("border-bottom: 3px solid rgb({}, {}, {});".format(*mask.colour))
            self._row.addWidget(label, 1)


class Gallery(QListView):
    """Crops of the regions of a model; the first one is the slide alone.

    Parameters
    ----------
    model
        Shared with the list.
    """

    def __init__(self, model: RegionModel):
        super().__init__()
        self.loader = CropLoader(self)
        self.masks: tuple[MaskPanel, ...] = ()
        self._regions = model
        self.setModel(model)
        self.setItemDelegate(_Row(self))
        self.setUniformItemSizes(True)
        self.setVerticalScrollMode(QListView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOn)
        self.setResizeMode(QListView.ResizeMode.Adjust)
        self._ask = QTimer(self)
        self._ask.setSingleShot(True)
        self._ask.timeout.connect(self._want)
        self.verticalScrollBar().valueChanged.connect(lambda _value: self._ask.start(SCROLLED_MS))
        self.loader.arrived.connect(self._on_arrival)

    def show_with(self, read: Read | None, masks: Sequence[MaskPanel]) -> None:
        """Show crops that ``read(number)`` returns: the slide, then these masks over it."""
        self.masks = tuple(masks)
        self.loader.read_with(read)
        self.scheduleDelayedItemsLayout()
        self._ask.start(0)

    @property
    def cell(self) -> int:
        """Pixels of a side of a crop on screen."""
        count = 1 + len(self.masks)
        return max((self.viewport().width() - GAP * (count + 1)) // count, 24)

    def rows_on_screen(self) -> range:
        """Return the rows that are at least partly on screen."""
        size = self.viewport().size()
        first = self.indexAt(self.viewport().rect().topLeft())
        if not first.isValid():
            return range(0)
        height = max(self.visualRect(first).height(), 1)
        shown = -(-(size.height() - self.visualRect(first).top()) // height)
        return range(first.row(), min(first.row() + shown, self._regions.rowCount()))

    def _want(self) -> None:
        """Have read what is on screen, then the next screen."""
        rows = self.rows_on_screen()
        ahead = range(rows.stop, min(rows.stop + len(rows), self._regions.rowCount()))
        self.loader.want([self._regions.number_at(row) for row in (*rows, *ahead)])

    def _on_arrival(self, number: int) -> None:
        row = self._regions.row_of(number)
        if row is not None:
            self.update(self._regions.index(row, 0))

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: D102
        super().resizeEvent(event)
        self.scheduleDelayedItemsLayout()
        self._ask.start(0)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: D102
        super().paintEvent(event)
        rows = self.rows_on_screen()
        if any(self._regions.number_at(row) not in self.loader for row in rows) and not self._ask.isActive():
            self._ask.start(0)


class _Row(QStyledItemDelegate):
    """Draws a row: the crops, and under them in words what the region is."""

    def __init__(self, gallery: Gallery):
        super().__init__(gallery)
        self._gallery = gallery

    def sizeHint(self, option: QStyleOptionViewItem, _index: QModelIndex | QPersistentModelIndex) -> QSize:
        return QSize(10, self._gallery.cell + 2 * GAP + option.fontMetrics.height())

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        model, cell = self._gallery._regions, self._gallery.cell
        region = model.region_at(index.row())
        chosen = bool(option.state & QStyle.StateFlag.State_Selected)
        painter.save()
        if chosen:
            painter.fillRect(option.rect, option.palette.brush(QPalette.ColorRole.Highlight))
        picture = self._gallery.loader.get(region.number)
        first = QRect(option.rect.left() + GAP, option.rect.top() + GAP, cell, cell)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        for place in range(1 + len(self._gallery.masks)):
            target = first.translated(place * (cell + GAP), 0)
            if picture is None:
                painter.fillRect(target, option.palette.brush(QPalette.ColorRole.Mid))
            else:
                painter.drawImage(target, picture, QRect(place * SIDE, 0, SIDE, SIDE))
        if picture is not None:
            square = square_around(region, model.table.about.mpp)
            _draw_corners(painter, first, region, square)
            _draw_scale(painter, first, square)
        role = QPalette.ColorRole.HighlightedText if chosen else QPalette.ColorRole.Text
        painter.setPen(option.palette.color(role))
        words = option.rect.adjusted(GAP, cell + GAP, -GAP, 0)
        text = option.fontMetrics.elidedText(
            self._caption(index.row(), region), Qt.TextElideMode.ElideRight, words.width()
        )
        painter.drawText(words, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, text)
        painter.restore()

    def _caption(self, row: int, region: Region) -> str:
        model = self._gallery._regions
        said = in_words(model.verdict_of(region.number), model.table.about)
        parts = (f"{row + 1:,}", area_of(region), classes_of(region), said)
        return "  ".join(part for part in parts if part)


def _draw_corners(painter: QPainter, frame: QRect, region: Region, square: Square) -> None:
    """Ticks at the corners of the region's box, so that it is known among others in the same crop."""
    y, x, height, width = region.box
    scale_y, scale_x = (frame.width() / SIDE / side for side in square.downsample)
    top = frame.top() + y * scale_y - square.y * frame.width() / SIDE
    left = frame.left() + x * scale_x - square.x * frame.width() / SIDE
    box = QRectF(left, top, width * scale_x, height * scale_y).adjusted(-3, -3, 3, 3)
    tick = TICK * frame.width()
    painter.setPen(QPen(QColor(as_hex(VERMILION)), 2))
    for corner, down, across in (
        (box.topLeft(), 1, 1),
        (box.topRight(), 1, -1),
        (box.bottomLeft(), -1, 1),
        (box.bottomRight(), -1, -1),
    ):
        for dy, dx in ((min(tick, box.height() / 3) * down, 0.0), (0.0, min(tick, box.width() / 3) * across)):
            end = type(corner)(corner.x() + dx, corner.y() + dy)
            painter.drawLine(corner, end)


def _draw_scale(painter: QPainter, frame: QRect, square: Square) -> None:
    """A bar of a round number of micrometres, and its length."""
    if square.side_um is None:
        return
    length = nice_length(0.45 * square.side_um)
    wide = round(frame.width() * length / square.side_um)
    text = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    painter.fillRect(
        QRect(frame.left() + 3, frame.bottom() - 18, max(wide, 40) + 6, 17), QColor(255, 255, 255, 200)
    )
    painter.fillRect(QRect(frame.left() + 6, frame.bottom() - 5, wide, 3), QColor("black"))
    painter.setPen(QColor("black"))
    font = painter.font()
    small = type(font)(font)
    small.setPixelSize(10)
    painter.setFont(small)
    painter.drawText(QRect(frame.left() + 6, frame.bottom() - 17, 60, 11), Qt.AlignmentFlag.AlignLeft, text)
    painter.setFont(font)


def nice_length(most: float) -> float:
    """Return the largest of 1, 2, 5, 10, 20 ... that is not above ``most``, which is 1 or more."""
    power = 1.0
    while 10 * power <= most:
        power *= 10
    return max(power * step for step in NICE if power * step <= most)
