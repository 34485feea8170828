"""Keys on the viewer, while layers of ours are there.

Plain digits, P, B, [ and Space belong to napari's layer modes, so all of these are combinations; Alt with F, V, L, P, W
or H opens a menu, with C or S takes a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject

from napari_kdseg.widgets.layers import overlays
from napari_kdseg.widgets.layers.placement import ROLE_KEY
from napari_kdseg.widgets.views.views import VIEWS, views_of

if TYPE_CHECKING:
    from napari.utils.events import Event
    from napari.viewer import Viewer

    from napari_kdseg.widgets.state.session import Session

KEYS = {
    "Alt-1": "show or hide the teacher's mask",
    "Alt-2": "show or hide the corrected soft label",
    "Alt-3": "show or hide the student's mask",
    "Alt-4": "show or hide the disagreement",
    "Alt-5": "masks over one another",
    "Alt-6": "hold to see the other mask through a lens",
    "Alt-7": "one mask left of a curtain, the other right of it",
    "Alt-8": "masks side by side",
    "Alt-9": "masks in turns",
    "Alt-0": "hold to see the slide only",
    "Alt-M": "masks not at all, as outlines, filled, where they differ",
    "Alt-O": "outline or fill",
    "Alt-Up": "overlays more opaque",
    "Alt-Down": "overlays less opaque",
}
FADE = 10
"""Percent of opacity a press."""
Action = Callable[["Viewer"], "Iterator[None] | None"]


def with_key(text: str, key: str) -> str:
    """A tooltip that names its key."""
    return f"{text} ({key.replace('-', '+')})"


class Keys(QObject):
    """Binds :data:`KEYS` on a viewer as long as it has layers of ours.

    Parameters
    ----------
    session
        Whose viewer.
    """

    def __init__(self, session: Session):
        super().__init__(session)
        self._session = session
        self._actions = actions(session)
        self._bound = False
        layers = session.viewer.layers
        layers.events.inserted.connect(self._renew)
        layers.events.removed.connect(self._renew)
        self._renew()

    def _renew(self, _event: Event | None = None) -> None:
        viewer = self._session.viewer
        wanted = any(ROLE_KEY in layer.metadata for layer in viewer.layers)
        if wanted != self._bound:
            self._bound = wanted
            for key, action in self._actions.items():
                viewer.bind_key(key, action if wanted else None, overwrite=True)


def actions(session: Session) -> dict[str, Action]:
    """What each of :data:`KEYS` does."""
    views = views_of(session)
    overlay, lens, *others = VIEWS[:-1]
    return {
        **{f"Alt-{n}": _do(overlays.toggle, session, group) for n, group in enumerate(overlays.GROUPS, 1)},
        "Alt-5": _do(views.show, overlay),
        "Alt-6": _hold(lambda: views.hold(lens)),
        **{f"Alt-{n}": _do(views.show, view) for n, view in enumerate(others, 7)},
        "Alt-0": _hold(views.peek),
        "Alt-M": _do(views.cycle),
        "Alt-O": _do(views.swap_outline),
        "Alt-Up": _do(overlays.fade, session, FADE),
        "Alt-Down": _do(overlays.fade, session, -FADE),
    }


def _do(function: Callable[..., object], *arguments: object) -> Action:
    def act(_viewer: Viewer) -> None:
        function(*arguments)

    return act


def _hold(press: Callable[[], Callable[[], None]]) -> Action:
    def act(_viewer: Viewer) -> Iterator[None]:
        release = press()
        yield  # until the key is released
        release()

    return act
