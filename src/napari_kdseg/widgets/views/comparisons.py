"""Two masks over one another: behind a curtain, through a lens, in turns."""

from __future__ import annotations

from typing import ClassVar

from qtpy.QtCore import QObject, QPoint, QTimer
from qtpy.QtGui import QCursor

from napari_kdseg.widgets.views.marks import CanvasEvents, Divider, Ring, Tag
from napari_kdseg.widgets.views.stage import Stage
from napari_kdseg.widgets.views.windows import EVERYWHERE, NOWHERE, Window, circle, left_of

MARGIN = 10


class Comparison(QObject):
    """A way to hold sides against one another. What it puts on the canvas is gone when it is stopped.

    Parameters
    ----------
    stage
        Where.
    parent
        Owner of this object.
    """

    side_count: ClassVar[int] = 2

    def __init__(self, stage: Stage, parent: QObject):
        super().__init__(parent)
        self.stage = stage

    def start(self) -> None:
        """Show it; the layers of the sides are visible."""

    def renew(self) -> None:
        """Show it with the settings as they are now."""

    def stop(self) -> None:
        """Leave the canvas as it was."""
        self.stage.windows.give({})

    def _split(self, first: Window, second: Window) -> None:
        """Draw the first side in one window, the second in the other."""
        sides = self.stage.sides()
        windows = zip(sides, (first, second), strict=True)
        self.stage.windows.give({side.layer: window for side, window in windows if side.layer is not None})


class Curtain(Comparison):
    """The first side left of a divider, the second right of it."""

    def start(self) -> None:  # noqa: D102
        canvas = self.stage.canvas
        self.divider, self.tags = Divider(canvas), (Tag(canvas), Tag(canvas))
        self.divider.dragged.connect(self._drag)
        self.divider.show()
        self._events = CanvasEvents(canvas, self)
        self._events.resized.connect(self.renew)
        for tag, side in zip(self.tags, self.stage.sides(), strict=True):
            tag.say(side.title, side.colour)
        self.renew()

    def _drag(self, share: float) -> None:
        self.stage.settings.divider = share
        self.renew()

    def renew(self) -> None:  # noqa: D102
        x = self.divider.put(self.stage.settings.divider)
        left, right = self.tags
        left.put(x - left.width() - MARGIN, MARGIN)
        right.put(x + MARGIN, MARGIN)
        if left.geometry().intersects(right.geometry()):  # the divider is at an edge
            right.put(x + MARGIN, MARGIN + left.height() + 2)
        self._split(left_of(x), left_of(x).inverse())

    def stop(self) -> None:  # noqa: D102
        self.stage.settings.keep()
        _take_away(self._events, self.divider, *self.tags)
        super().stop()


class Lens(Comparison):
    """The first side, and in a circle under the cursor the second."""

    def start(self) -> None:  # noqa: D102
        canvas = self.stage.canvas
        self.ring, self.tag = Ring(canvas), Tag(canvas)
        self._centre: QPoint | None = canvas.mapFromGlobal(QCursor.pos())
        if not canvas.rect().contains(self._centre):
            self._centre = None
        self._events = CanvasEvents(canvas, self)
        self._events.moved.connect(lambda x, y: self._look_at(QPoint(round(x), round(y))))
        self._events.left.connect(lambda: self._look_at(None))
        _, inside = self.stage.sides()
        self.tag.say(inside.title, inside.colour)
        self.renew()

    def _look_at(self, centre: QPoint | None) -> None:
        self._centre = centre
        self.renew()

    def renew(self) -> None:  # noqa: D102
        centre, radius = self._centre, self.stage.settings.radius
        self.ring.setVisible(centre is not None)
        self.tag.setVisible(centre is not None)
        if centre is None:
            self._split(EVERYWHERE, NOWHERE)
            return
        self.ring.put(centre, radius)
        self.tag.put(centre.x() - self.tag.width() // 2, centre.y() + radius + MARGIN)
        inside = circle((centre.x(), centre.y()), radius)
        self._split(inside.inverse(), inside)

    def stop(self) -> None:  # noqa: D102
        _take_away(self._events, self.ring, self.tag)
        super().stop()


class Flicker(Comparison):
    """The two sides in turns."""

    def start(self) -> None:  # noqa: D102
        self.tag = Tag(self.stage.canvas)
        self.shown = 1
        self._timer = QTimer(self.tag)  # it ends with the canvas
        self._timer.timeout.connect(self.turn)
        self.turn()
        self.renew()

    def renew(self) -> None:  # noqa: D102
        self._timer.start(round(1000 / self.stage.settings.changes))

    def turn(self) -> None:
        """Show the other side."""
        self.shown = 1 - self.shown
        side = self.stage.sides()[self.shown]
        self.tag.say(side.title, side.colour)
        self.tag.put(MARGIN, MARGIN)
        self._split(*((NOWHERE, EVERYWHERE) if self.shown else (EVERYWHERE, NOWHERE)))

    def stop(self) -> None:  # noqa: D102
        _take_away(self.tag)
        super().stop()


def _take_away(*things: QObject) -> None:
    for thing in things:
        thing.setParent(None)
        thing.deleteLater()
