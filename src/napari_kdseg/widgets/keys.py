"""Keys on the viewer.

Plain digits, P, B, [ and Space belong to napari's layer modes, so all of these are combinations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from napari_kdseg.widgets.binding import session_of
from napari_kdseg.widgets.layers import overlays

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_kdseg.widgets.state.session import Session

KEYS = {
    "Alt-1": "show or hide the teacher's mask",
    "Alt-2": "show or hide the corrected soft label",
    "Alt-3": "show or hide the student's mask",
    "Alt-4": "show or hide the disagreement",
    "Alt-0": "hold to see the slide only",
    "Alt-O": "outline or fill",
    "Alt-Up": "overlays more opaque",
    "Alt-Down": "overlays less opaque",
    "Alt-Right": "next disagreement",
    "Alt-Left": "previous disagreement",
    "Alt-T": "teacher right",
    "Alt-D": "student right",
    "Alt-B": "both right enough",
    "Alt-N": "both wrong (neither is right)",
    "Alt-U": "unclear",
    "Alt-Z": "take the last mark back",
    "Alt-Shift-Z": "give it again",
}
"""Alt-S and Alt-C belong to napari's screenshots, Alt-F, L, P, V, W and H to its menus."""


def bind_keys(viewer: Viewer) -> None:
    """Bind those of :data:`KEYS` that are about overlays; a review binds its own. Safe to repeat."""
    session = session_of(viewer)
    viewer = session.viewer
    for key, group in zip(("Alt-1", "Alt-2", "Alt-3", "Alt-4"), overlays.GROUPS, strict=True):
        viewer.bind_key(key, _toggle(session, group), overwrite=True)
    viewer.bind_key("Alt-0", _peek(session), overwrite=True)
    viewer.bind_key(
        "Alt-O", lambda _viewer: overlays.set_outline(session, not session.outline), overwrite=True
    )
    viewer.bind_key("Alt-Up", lambda _viewer: overlays.fade(session, 0.1), overwrite=True)
    viewer.bind_key("Alt-Down", lambda _viewer: overlays.fade(session, -0.1), overwrite=True)


def _toggle(session: Session, group: str) -> Callable[[Viewer], None]:
    def act(_viewer: Viewer) -> None:
        overlays.toggle(session, group)

    return act


def _peek(session: Session) -> Callable[[Viewer], Iterator[None]]:
    def act(_viewer: Viewer) -> Iterator[None]:
        hidden = overlays.shown(session)
        for layer in hidden:
            layer.visible = False
        yield  # until the key is released
        for layer in hidden:
            layer.visible = True

    return act
