"""The review: regions in a list and a gallery, marks on them, keys. Any dock that has regions to look at has one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QItemSelection, Qt, Signal
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QLabel, QSplitter, QVBoxLayout, QWidget

from napari_kdseg.comparison.regions.table import Region, RegionTable
from napari_kdseg.comparison.review.marks import Mark, Verdict
from napari_kdseg.widgets.layers.placement import SOURCE_KEY, find
from napari_kdseg.widgets.parts.controls import button, row
from napari_kdseg.widgets.parts.note import Note
from napari_kdseg.widgets.review.arrangement import arrange
from napari_kdseg.widgets.review.crops import MaskPanel, Scaled, panels
from napari_kdseg.widgets.review.gallery import Gallery, Titles
from napari_kdseg.widgets.review.keys import key_tip, take_keys, take_keys_inside
from napari_kdseg.widgets.review.mark_box import MarkBox
from napari_kdseg.widgets.review.marking import Marking
from napari_kdseg.widgets.review.model import NO_REGIONS, RegionModel
from napari_kdseg.widgets.review.opening import Opened, open_regions, read_crops
from napari_kdseg.widgets.review.region_list import Filters, RegionList
from napari_kdseg.widgets.review.wording import area_text, sentence
from napari_kdseg.widgets.state.background import in_background
from napari_kdseg.widgets.state.camera import fly_to
from napari_kdseg.widgets.state.preferences import preferences

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_kdseg.slides import Slide
    from napari_kdseg.widgets.state.session import Session

NOTHING = (
    "Nothing to review yet. Compare two masks of this slide; the regions where they differ are listed here."
)
LIST_HEIGHT, GALLERY_HEIGHT = 150, 250


class ReviewBox(QWidget):
    """Regions of the session's slide, to be looked at and marked one by one.

    Parameters
    ----------
    session
        Its slide is what the regions are of, and its viewer flies to them.
    viewer
        The viewer, for the keys.
    reader
        Who marks; kept with every mark.

    Signals
    -------
    went(int)
        The region of this number is looked at.
    marked(int)
        The mark of the region of this number is another one, or none any more.
    shown()
        Regions of :meth:`show_regions`, or of another order, are listed.
    """

    went = Signal(int)
    marked = Signal(int)
    shown = Signal()

    def __init__(self, session: Session, viewer: Viewer | None = None, *, reader: str = ""):
        super().__init__()
        self.session = session
        self._viewer = session.viewer if viewer is None else viewer
        self.table: RegionTable | None = None
        self.current: Region | None = None
        self._slide: Slide | None = None
        self._turn = 0
        self.marking = Marking(self, reader)
        self.model = RegionModel()
        self._build()
        take_keys_inside(self, self)
        session.slide_changed.connect(self._on_slide)
        self.clear()

    # -- what it is made of ------------------------------------------------------------------------

    def _build(self) -> None:
        self.note, self.position, self.about = Note(), QLabel(), Note()
        self.filters = Filters()
        self.list = RegionList(self.model)
        self.list.setMinimumHeight(LIST_HEIGHT)
        self.gallery = Gallery(self.model)
        self.gallery.setSelectionModel(self.list.selectionModel())
        self.titles = Titles(self.gallery)
        pictures = QWidget()
        under = QVBoxLayout(pictures)
        under.setContentsMargins(0, 0, 0, 0)
        under.setSpacing(2)
        under.addWidget(self.titles)
        under.addWidget(self.gallery)
        pictures.setMinimumHeight(GALLERY_HEIGHT)
        self.views = QSplitter(Qt.Orientation.Vertical)
        self.views.setChildrenCollapsible(False)
        self.views.addWidget(self.list)
        self.views.addWidget(pictures)
        self.marks = MarkBox()
        self.previous = button("◀", key_tip("Alt-Left"), partial(self.step, -1))
        self.next = button("▶", key_tip("Alt-Right"), partial(self.step, 1))
        self.bar = row(self.previous, self.next, self.position, stretch=2)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for widget in (self.note, self.bar, self.about, self.marks, self.filters, self.views):
            layout.addWidget(widget)
        self.filters.changed.connect(self._arrange)
        self.list.horizontalHeader().sortIndicatorChanged.connect(lambda _column, _order: self._arrange())
        self.list.selectionModel().selectionChanged.connect(self._on_choice)
        self.gallery.loader.failed.connect(self.note.warn)
        self.marks.said.connect(self.mark)
        self.marks.commented.connect(self.comment)
        self.marks.undone.connect(self.undo)
        self.marks.redone.connect(self.redo)
        self.marking.changed.connect(self._on_marked)
        self.marking.kept.connect(self._on_kept)
        self.marking.failed.connect(self.note.warn)

    # -- which regions -----------------------------------------------------------------------------

    def clear(self, note: str = NOTHING) -> None:
        """Show no regions; what was said of them is kept."""
        self._finish_comment()
        self._turn += 1
        self.table = self.current = self._slide = None
        self.marking.close()
        self.model.set_regions(NO_REGIONS, self.marking.said)
        self.gallery.show_with(None, ())
        self.note.say(note)
        for widget in (self.bar, self.about, self.marks, self.filters, self.views):
            widget.hide()

    def show_regions(self, table: RegionTable, masks: Mapping[str, Scaled]) -> None:
        """List regions of the session's slide, with what was said of them before.

        Parameters
        ----------
        table
            All regions; they may stay on disk.
        masks
            What the gallery shows beside the slide, by title: the two that were compared under their names of the
            table, and others, such as ``"reference"``.
        """
        slide = self.session.slide
        if slide is None:
            self.clear("Open the slide of these regions in 1 Slide first.")
            return
        self.clear("Looking for what was said of these regions before …")
        turn, folder = self._turn, preferences().folder / "reviews"
        shown = panels(masks, table.about)

        def show(opened: Opened) -> None:
            if turn == self._turn and not self.session.closed:
                self._show(table, shown, slide, opened)

        in_background(partial(open_regions, folder, slide, table), show, self.note.warn)

    def _show(self, table: RegionTable, masks: tuple[MaskPanel, ...], slide: Slide, opened: Opened) -> None:
        self.table, self._slide = table, slide
        self.marking.open(opened.review, opened.said)
        self.filters.offer(table, opened.pairs)
        self.marks.name(table.about)
        self.titles.name(masks)
        read = partial(read_crops, self._pixels_of(slide), masks, table)
        self._list(opened.listed)
        self.gallery.show_with(read, masks)
        for widget in (self.bar, self.marks, self.filters, self.views):
            widget.show()
        if opened.problem:
            self.note.warn(f"{opened.problem} Until then nothing can be marked.")
        else:
            self.note.say(" ".join(opened.review.notes) if opened.review else "")
        self._show_mark()
        take_keys(self._viewer, self)

    def _pixels_of(self, slide: Slide) -> Slide:
        """The slide in the colours in which it is shown."""
        layer = find(self._viewer, "slide")
        shown: Slide | None = None if layer is None else layer.metadata.get(SOURCE_KEY)
        return slide if shown is None or not slide.brightfield else shown

    def _on_slide(self, slide: Slide) -> None:
        if self.table is not None and slide is not self._slide:
            self.clear("Another slide is shown. " + NOTHING)

    def _arrange(self) -> None:
        """List what is wanted now, in the wanted order."""
        if self.table is None:
            return
        header = self.list.horizontalHeader()
        wish = self.filters.wish(header.sortIndicatorSection(), header.sortIndicatorOrder())
        self._turn += 1
        turn = self._turn

        def show(listed: RegionTable) -> None:
            if turn == self._turn and not self.session.closed:
                self._list(listed)

        in_background(partial(arrange, self.table, wish, self.marking.said.copy()), show)

    def _list(self, listed: RegionTable) -> None:
        self.model.set_regions(listed, self.marking.said)
        if self.current is not None:
            self._select(self.model.row_of(self.current.number))
        self._show_position()
        self.shown.emit()

    # -- where one is ------------------------------------------------------------------------------

    def step(self, step: int) -> None:
        """Go to the next (1) or the previous (-1) region of the list."""
        if self.table is None:
            self._viewer.status = NOTHING
            return
        here = None if self.current is None else self.model.row_of(self.current.number)
        there = self.model.next_row(here, step, unmarked=self.filters.unmarked.isChecked())
        if there is None:
            end = "last" if step > 0 else "first"
            self._viewer.status = f"That was the {end} one. {self.position.text()}"
            return
        self.go(self.model.number_at(there))

    def go(self, number: int) -> None:
        """Fly to the region of this number, also if it is not listed."""
        index = None if self.table is None else self.table.index_of(number)
        if self.table is None or index is None:
            return
        self._finish_comment()
        self.current = self.table.at(index)
        self._select(self.model.row_of(number))
        self._fly()
        self._show_position()
        self._show_mark()
        self.went.emit(number)

    def _fly(self) -> None:
        if self.current is None or self._slide is None:
            return
        if find(self._viewer, "slide") is None:
            self.note.warn(
                "The layer of the slide is gone from the viewer, so there is nothing to see here. Open the slide again "
                "in 1 Slide; all marks are kept."
            )
        fly_to(self._viewer, self._slide, self.current.box)

    def _select(self, row: int | None) -> None:
        if row is None:
            self.list.clearSelection()
            return
        index = self.model.index(row, 0)
        self.list.setCurrentIndex(index)
        self.gallery.scrollTo(index)

    def _on_choice(self, chosen: QItemSelection, _left: QItemSelection) -> None:
        if chosen.indexes():
            number = self.model.number_at(chosen.indexes()[0].row())
            if self.current is None or number != self.current.number:
                self.go(number)

    def _show_position(self) -> None:
        """Say where one is, and how much is left."""
        if self.table is None:
            return
        total, (_, area) = self.model.rowCount(), self.model.left()
        left = area_text(area, scaled=self.table.about.mpp is not None)
        here = None if self.current is None else self.model.row_of(self.current.number)
        at = f"{total:,} regions" if here is None else f"{here + 1:,} of {total:,}"
        self.position.setText(f"{at}, {left} left")
        self.about.say("" if self.current is None else sentence(self.table, self.current))
        self._viewer.status = self.position.text()

    # -- what is said ------------------------------------------------------------------------------

    def mark(self, verdict: Verdict) -> None:
        """Say who is right in the present region, with the comment as it stands."""
        if self.current is None:
            self._viewer.status = "Choose a region first: in the list, in the gallery, or with Alt+Right."
            self._show_mark()
            return
        self._say(verdict, self.marks.comment.text())

    def comment(self, text: str) -> None:
        """Say something of the present region; its verdict stays."""
        before = self._mark()
        if self.current is not None and text != ("" if before is None else before.comment):
            self._say(Verdict.NONE if before is None else before.mark, text)

    def undo(self) -> None:
        """Take the last mark back, and go where it was."""
        self._go_back(self.marking.undo())

    def redo(self) -> None:
        """Give the mark again that was taken back, and go where it is."""
        self._go_back(self.marking.redo())

    def _finish_comment(self) -> None:
        """Keep what was typed before one goes on."""
        if self.current is not None:
            self.comment(self.marks.comment.text())

    def _mark(self) -> Mark | None:
        return None if self.current is None else self.marking.of(self.current.number)

    def _say(self, verdict: Verdict, comment: str) -> None:
        if self.current is not None:
            self.marking.say(self.current, verdict, comment)
        self._show_mark()

    def _go_back(self, number: int | None) -> None:
        if number is not None:
            self.marks.show_mark(
                self._mark()
            )  # or what was taken back would count as a comment that was typed
            self.go(number)

    def _on_marked(self, number: int) -> None:
        self.model.verdict_changed(number)
        self._show_position()
        self.marked.emit(number)

    def _on_kept(self) -> None:
        if self.note.text().startswith("The mark could not be kept"):
            self.note.say("")

    def _show_mark(self) -> None:
        self.marks.show_mark(self._mark())
        self.marks.allow(
            self.marking.possible and self.current is not None,
            undo=self.marking.can_undo,
            redo=self.marking.can_redo,
        )

    def showEvent(self, event: QShowEvent) -> None:  # noqa: D102
        super().showEvent(event)
        if self.table is not None:
            take_keys(self._viewer, self)
