"""What the views have in common: the two or three sides that are compared, and their windows on the canvas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_kdseg.widgets._compat import canvas_widget
from napari_kdseg.widgets.layers.colours import SOURCES
from napari_kdseg.widgets.layers.overlays import layer_of
from napari_kdseg.widgets.views.windows import Windows

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer
    from qtpy.QtWidgets import QWidget

    from napari_kdseg.widgets.state.session import Session
    from napari_kdseg.widgets.state.view_settings import ViewSettings

TITLES = {
    "teacher": "Teacher",
    "corrected": "Corrected label",
    "student": "Student",
    "disagreement": "Disagreement",
    "": "Slide only",
}


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes
    ----------
    group
        ``"teacher"`` ...; ``""`` is the slide alone.
    layer
        What is shown of it, if there is anything.
    """

    group: str
    layer: Layer | None

    @property
    def title(self) -> str:
        """For people."""
        return TITLES[self.group]

    @property
    def colour(self) -> str:
        """That stands for the source."""
        return SOURCES.get(self.group, "#ffffff")

    @property
    def missing(self) -> bool:
        """Whether there should be a layer, and is none."""
        return bool(self.group) and self.layer is None


class Stage:
    """Where comparisons take place.

    Parameters
    ----------
    session
        Whose viewer.
    """

    def __init__(self, session: Session):
        self.session = session
        self.windows = Windows(session.viewer)

    @property
    def viewer(self) -> Viewer:
        """The viewer."""
        return self.session.viewer

    @property
    def canvas(self) -> QWidget:
        """The widget of the canvas."""
        return canvas_widget(self.viewer)

    @property
    def settings(self) -> ViewSettings:
        """How the person wants it."""
        return self.session.view_settings

    def sides(self, count: int = 2) -> list[Side]:
        """The first sides; of three only those that are wanted."""
        groups = self.settings.sides[:count] if self.settings.sides[2] else self.settings.sides[:2]
        return [Side(group, layer_of(self.session, group) if group else None) for group in groups]
