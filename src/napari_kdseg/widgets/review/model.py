"""The regions that are listed, for views of Qt. A row is looked up when it is drawn; nothing is made for the others."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt
from qtpy.QtGui import QColor

from napari_kdseg.codes import DIFFERENCES
from napari_kdseg.colours import as_hex
from napari_kdseg.comparison.regions.table import COLUMNS, Compared, Region, RegionTable
from napari_kdseg.comparison.review.marks import Verdict, in_words
from napari_kdseg.widgets.review.arrangement import CLASSES, MARK, VERDICTS, area_column
from napari_kdseg.widgets.review.wording import area_figure, depth_figure, gap_of, seen, sentence

TITLES = ("#", "Area", "Gap", "Depth", "Classes", "Mark")
RANKED_BY = ("region", "area_mm2", "gap", "depth_um", CLASSES, MARK)
"""What a click on the title of each column ranks by."""
TIPS = (
    "Where it stands in this list; a click lists them as they lie on the slide",
    "Area of the region, in mm², or in pixels (px) where the slide has no scale",
    "How far the probabilities of the two masks' classes are apart, on average; a dash where they were not kept",
    "The largest distance of its pixels from its border, in µm: half the width of a rim",
    "The class that only one mask sees, in the colour of that mask; or what the one says and the other",
    "What you said of it",
)
NUMBER_ROLE = Qt.ItemDataRole.UserRole
NO_REGIONS = RegionTable(np.empty(0, COLUMNS), Compared("first", "second", (), (1.0, 1.0)))


class RegionModel(QAbstractTableModel):
    """A table of regions and what was said of them."""

    def __init__(self) -> None:
        super().__init__()
        self.table = NO_REGIONS
        self._said = np.zeros(0, np.uint8)

    def set_regions(self, table: RegionTable, said: np.ndarray) -> None:
        """Show these rows.

        Parameters
        ----------
        table
            Filtered and ranked.
        said
            Of :func:`~napari_kdseg.widgets.review.arrangement.verdicts`; it may change, see :meth:`verdict_changed`.
        """
        self.beginResetModel()
        self.table, self._said = table, said
        self.endResetModel()

    def verdict_changed(self, number: int) -> None:
        """Show what is said of the region of this number now."""
        row = self.row_of(number)
        if row is not None:
            self.dataChanged.emit(self.index(row, 0), self.index(row, len(TITLES) - 1))

    def row_of(self, number: int) -> int | None:
        """Return the row of the region of this number; ``None`` if a filter left it out."""
        return self.table.index_of(number)

    def number_at(self, row: int) -> int:
        """Return the number of the region in a row."""
        return int(self.table.rows["region"][row])

    def next_row(self, row: int | None, step: int, *, unmarked: bool = False) -> int | None:
        """Return the row after (``step`` 1) or before (-1) a row; ``None`` at the end.

        Parameters
        ----------
        row
            Where one is; ``None`` if nowhere, and then it is the first.
        step
            1 or -1.
        unmarked
            Pass over what has a verdict by now.
        """
        start = row + step if row is not None else 0
        there = np.arange(start, len(self.table)) if step > 0 or row is None else np.arange(start, -1, -1)
        if unmarked:
            there = there[self._said[self.table.rows["region"][there]] == 0]
        return int(there[0]) if there.size else None

    def left(self) -> tuple[int, float]:
        """Return how many of the rows have no verdict yet, and their area in mm² (pixels without a scale)."""
        open_rows = self._said[self.table.column("region")] == 0
        return int(open_rows.sum()), float(self.table.column(area_column(self.table))[open_rows].sum())

    def verdict_of(self, number: int) -> Verdict:
        """Return what was said of the region of this number."""
        return VERDICTS[self._said[number]]

    # -- what Qt asks ------------------------------------------------------------------------------

    def rowCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008, D102
        return 0 if parent.isValid() else len(self.table)

    def columnCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008, D102
        return 0 if parent.isValid() else len(TITLES)

    def headerData(  # noqa: D102
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            bare = TITLES[section] == "Area" and self.table.about.mpp is None
            return {"Area": "px" if bare else "mm²"}.get(TITLES[section], TITLES[section])
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.ToolTipRole:
            return TIPS[section]
        return None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:  # noqa: D102
        row, title = index.row(), TITLES[index.column()]
        if role == NUMBER_ROLE:
            return self.number_at(row)
        if role == Qt.ItemDataRole.TextAlignmentRole and title in ("#", "Area", "Gap", "Depth"):
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        if role == Qt.ItemDataRole.DisplayRole:
            return self._text(row, title)
        if role == Qt.ItemDataRole.DecorationRole and title == "Classes":
            return QColor(as_hex(DIFFERENCES[self.table.at(row).kind].colour))
        if role == Qt.ItemDataRole.ToolTipRole:
            region = self.table.at(row)
            said = in_words(self.verdict_of(region.number), self.table.about)
            return f"{sentence(self.table, region)}\n{said}".strip()
        return None

    def _text(self, row: int, title: str) -> str:
        if title == "#":
            return f"{row + 1:,}"
        region = self.table.at(row)
        if title == "Mark":
            return self._short(self.verdict_of(region.number))
        in_title = {"Area": area_figure, "Gap": gap_of, "Depth": depth_figure, "Classes": seen}
        return in_title[title](region)

    def _short(self, verdict: Verdict) -> str:
        names = {Verdict.FIRST: self.table.about.first, Verdict.SECOND: self.table.about.second}
        return names.get(verdict, verdict.value)

    def region_at(self, row: int) -> Region:
        """Return the region in a row."""
        return self.table.at(row)
