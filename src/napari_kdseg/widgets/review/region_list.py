"""The list of regions and what narrows it down."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QDoubleSpinBox,
    QHeaderView,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_kdseg.codes import Difference
from napari_kdseg.comparison.regions.table import RegionTable
from napari_kdseg.widgets.parts.controls import combo, row
from napari_kdseg.widgets.review.arrangement import Wish
from napari_kdseg.widgets.review.model import RANKED_BY, RegionModel

WIDTHS = (40, 60, 40, 46)
"""Of all columns but the classes, which get what is left, and the marks."""
MARK_WIDTH = 60
KINDS = (Difference.ONLY_TEACHER, Difference.ONLY_STUDENT, Difference.DIFFERENT_CLASS)


class RegionList(QTableView):
    """Regions, one a row, however many there are."""

    def __init__(self, model: RegionModel):
        super().__init__()
        self.setModel(model)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTabKeyNavigation(False)
        down = self.verticalHeader()
        down.hide()
        down.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)  # never asks 200,000 rows how high they are
        down.setDefaultSectionSize(self.fontMetrics().height() + 6)
        across = self.horizontalHeader()
        across.setMinimumSectionSize(24)
        for column, width in enumerate(WIDTHS):
            self.setColumnWidth(column, width)
        across.setSectionResizeMode(len(WIDTHS), QHeaderView.ResizeMode.Stretch)
        self.setColumnWidth(len(WIDTHS) + 1, MARK_WIDTH)
        across.setSortIndicator(RANKED_BY.index("area_mm2"), Qt.SortOrder.DescendingOrder)
        across.setSortIndicatorShown(True)
        across.setSectionsClickable(True)
        across.setHighlightSections(False)


class Filters(QWidget):
    """What is listed.

    Signals
    -------
    changed()
        A person wants other regions listed.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.kind = combo("Only differences of this kind, or these two classes")
        self.min_area = QDoubleSpinBox()
        self.min_area.setPrefix("≥ ")
        self.min_area.setToolTip("Only regions of this area or more")
        self.min_area.setKeyboardTracking(False)
        self.min_area.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
        self.unmarked = QCheckBox("unmarked")
        self.unmarked.setToolTip("Only regions that have no mark yet")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(row(self.kind, self.min_area, self.unmarked, stretch=0))
        self.kind.activated.connect(lambda _index: self.changed.emit())
        self.min_area.valueChanged.connect(lambda _value: self.changed.emit())
        self.unmarked.toggled.connect(lambda _on: self.changed.emit())

    def offer(self, table: RegionTable, pairs: list[tuple[int, int]]) -> None:
        """Offer the kinds and pairs of classes of a table, and want all of it."""
        for widget in (self.kind, self.min_area, self.unmarked):
            widget.blockSignals(True)
        self.kind.clear()
        self.kind.addItem("all", (None, None))
        for kind in KINDS:
            self.kind.addItem(table.kind_name(kind), (kind, None))
        for pair in pairs:
            self.kind.addItem(" | ".join(table.class_name(value) for value in pair), (None, pair))
        scaled = table.about.mpp is not None
        self.min_area.setDecimals(4 if scaled else 0)
        self.min_area.setSingleStep(0.001 if scaled else 10)
        self.min_area.setMaximum(1e6 if scaled else 1e12)
        self.min_area.setSuffix(" mm²" if scaled else " px")
        self.min_area.setValue(0)
        self.min_area.setFixedWidth(100)
        self.unmarked.setChecked(False)
        for widget in (self.kind, self.min_area, self.unmarked):
            widget.blockSignals(False)

    def wish(self, column: int, order: Qt.SortOrder) -> Wish:
        """Return what is wanted, ranked by a column of the list."""
        kind, pair = self.kind.currentData() or (None, None)
        return Wish(
            by=RANKED_BY[column],
            largest_first=order == Qt.SortOrder.DescendingOrder,
            kind=kind,
            pair=pair,
            min_area=self.min_area.value(),
            unmarked=self.unmarked.isChecked(),
        )
