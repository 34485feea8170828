"""The views of one session: which one is shown, with what, and how masks are drawn in it.

A view changes what is drawn, never where the camera is. It survives its layers: one that is deleted, renamed or added
in the middle has the view arranged anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_kdseg.widgets.layers import overlays
from napari_kdseg.widgets.layers.placement import ROLE_KEY, find
from napari_kdseg.widgets.views.comparisons import Comparison, Curtain, Flicker, Lens
from napari_kdseg.widgets.views.panes import Panes
from napari_kdseg.widgets.views.stage import TITLES, Side, Stage

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.utils.events import Event

    from napari_kdseg.widgets.state.session import Session

COMPARISONS: dict[str, type[Comparison]] = {
    "lens": Lens,
    "curtain": Curtain,
    "side by side": Panes,
    "flicker": Flicker,
}
VIEWS = ("overlay", *COMPARISONS, "slide only")
DRAWINGS = ("none", "outline", "fill", "difference")
MASKS = ("teacher", "corrected", "student")


def views_of(session: Session) -> Views:
    """Return the views of ``session``, made on first use."""
    found = session.findChild(Views)
    return found if isinstance(found, Views) else Views(session)


class Views(QObject):
    """Shows the masks of a session in one view or another.

    Signals
    -------
    changed()
        Another view, side or drawing, or a layer came or went.

    Attributes
    ----------
    view
        One of :data:`VIEWS`.
    """

    changed = Signal()

    def __init__(self, session: Session):
        super().__init__(session)
        self.session = session
        self.view = "overlay"
        self.stage = Stage(session)
        self.comparison: Comparison | None = None
        self._masks_drawn = "as styled"
        self._peeking = False
        self._arranging = self._ended = False
        self._were_visible: dict[Layer, bool] = {}
        self._cast = self._find_cast()
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self._on_change)
        layers = session.viewer.layers
        layers.events.inserted.connect(self._on_layers)
        layers.events.removed.connect(self._on_layers)
        layers.events.reordered.connect(self._on_layers)
        session.overlays_changed.connect(self._on_layers)
        session.overlays_restyled.connect(self._cover)
        self.stage.canvas.destroyed.connect(self._end)

    # -- what is shown -----------------------------------------------------------------------------

    def show(self, view: str) -> None:
        """Show another of :data:`VIEWS`; pan and zoom stay."""
        if view not in VIEWS:
            raise ValueError(f"There is no view '{view}'. Choose one of {', '.join(VIEWS)}.")
        if view != self.view:
            self.view = view
            self._arrange()

    def hold(self, view: str) -> Callable[[], None]:
        """Show ``view`` until the function that is returned is called; then the one before again."""
        before = self.view
        self.show(view)
        return lambda: self.show(before)

    def peek(self) -> Callable[[], None]:
        """Show the slide alone, in whatever view, until the function that is returned is called."""
        self._peeking = True
        self._cover()

        def end() -> None:
            self._peeking = False
            self._cover()

        return end

    @property
    def drawing(self) -> str:
        """How masks are drawn: one of :data:`DRAWINGS`."""
        if self._masks_drawn != "as styled":
            return self._masks_drawn
        return "outline" if self.session.view_settings.outline else "fill"

    def draw(self, drawing: str) -> None:
        """Draw the masks as outlines, filled, not at all, or only where they differ."""
        if drawing not in DRAWINGS:
            raise ValueError(f"Masks cannot be drawn as '{drawing}'. Choose one of {', '.join(DRAWINGS)}.")
        differs = "difference" in (drawing, self._masks_drawn)
        if drawing in ("outline", "fill"):
            self._masks_drawn = "as styled"
            overlays.set_outline(self.session, drawing == "outline")
        else:
            self._masks_drawn = drawing
        if differs:
            self._arrange()
        self._cover()
        self.changed.emit()

    def swap_outline(self) -> None:
        """Outlines instead of fill, or the other way round."""
        self.draw("fill" if self.drawing == "outline" else "outline")

    def cycle(self) -> None:
        """Draw the masks in the next of :data:`DRAWINGS`; the difference only where there is one."""
        after = DRAWINGS[(DRAWINGS.index(self.drawing) + 1) % len(DRAWINGS)]
        if after == "difference" and find(self.session.viewer, "disagreement") is None:
            after = "none"
        self.draw(after)

    def choose_side(self, index: int, group: str) -> None:
        """Put ``group`` on this side; if it is on another, the two change places."""
        sides = list(self.stage.settings.sides)
        if group and group in sides:
            sides[sides.index(group)] = sides[index]
        sides[index] = group
        self.set(sides=tuple(sides))
        self._arrange()

    def set(self, **settings: Any) -> None:
        """Change settings of the views (:class:`ViewSettings`); they are kept."""
        for name, value in settings.items():
            setattr(self.stage.settings, name, value)
        self.stage.settings.keep()
        if self.comparison is not None:
            self.comparison.renew()

    @property
    def missing(self) -> list[Side]:
        """Sides of this view that have no layer: never computed, or deleted."""
        return [side for side in self._sides() if side.missing]

    def _sides(self) -> list[Side]:
        comparison = COMPARISONS.get(self.view)
        return self.stage.sides(comparison.side_count) if comparison else []

    # -- arranging ---------------------------------------------------------------------------------

    def _on_layers(self, _event: Event | None = None) -> None:
        """Arrange anew when all that comes or goes now has done so."""
        if not self._arranging:
            self._soon.start(0)

    def _end(self) -> None:
        """The window is closed, and all that lay on its canvas gone with it."""
        self._soon.stop()
        self.comparison = None
        self._ended = True

    def _find_cast(self) -> tuple[object, ...]:
        """What decides how a view is arranged."""
        ours = (layer for layer in self.session.viewer.layers if ROLE_KEY in layer.metadata)
        return self.view, self._masks_drawn, self.stage.settings.sides, self.session.corrected_view, *ours

    def _on_change(self) -> None:
        """Arrange anew what is other than it was: masks are renewed all the time while they are computed."""
        if self._ended or self.session.closed:
            return
        present = set(self.session.viewer.layers)
        self._were_visible = {layer: was for layer, was in self._were_visible.items() if layer in present}
        if self._find_cast() == self._cast:
            self._cover()
            self.changed.emit()
        else:
            self._arrange()

    def _arrange(self) -> None:
        """Show the view as it is to be now, whatever was there before."""
        self._arranging = True
        try:
            if self.comparison is not None:
                self.comparison.stop()
                self.comparison.deleteLater()
                self.comparison = None
            self._set_visible()
            if self.view in COMPARISONS:
                self.comparison = COMPARISONS[self.view](self.stage, self)
                self.comparison.start()
        finally:
            self._cast = self._find_cast()
            self._arranging = False
        self._cover()
        self.changed.emit()

    def _set_visible(self) -> None:
        """Make the layers of the sides visible and other masks not; where none is asked for, as they were."""
        wanted: dict[Layer, bool] = {}
        sides = self._sides()
        for layer in self._layers(overlays.GROUPS) if sides else ():
            wanted[layer] = layer in [side.layer for side in sides]
        difference = find(self.session.viewer, "disagreement")
        if difference is not None and self._masks_drawn == "difference":
            wanted[difference] = True
        for layer in set(self._were_visible) - set(wanted):
            layer.visible = self._were_visible.pop(layer)
        for layer, visible in wanted.items():
            self._were_visible.setdefault(layer, layer.visible)
            layer.visible = visible

    def _cover(self) -> None:
        """Keep from the canvas what is not to be seen just now; napari need not slice it again to show it."""
        if self._ended or self.session.closed:
            return
        if self._peeking or self.view == "slide only":
            covered = overlays.shown(self.session)
        elif self._masks_drawn == "as styled":
            covered = []
        else:
            covered = self._layers(MASKS if self._masks_drawn == "difference" else overlays.GROUPS)
        self.stage.windows.hide(covered)

    def _layers(self, groups: Iterable[str]) -> list[Layer]:
        roles = {role for group in groups for role in overlays.GROUPS[group]}
        return [layer for layer in self.session.viewer.layers if layer.metadata.get(ROLE_KEY) in roles]


def in_words(missing: list[Side]) -> str:
    """Say what there is nothing of, and what to do; nothing where nothing is missing."""
    if not missing:
        return ""
    names = " and of ".join(TITLES[side.group].lower() for side in missing)
    return (
        f"There is nothing of {names} among the layers: not computed yet, or deleted from the list. Bring back "
        "what is on disk, let 2 Models segment the slide, or compare others."
    )
