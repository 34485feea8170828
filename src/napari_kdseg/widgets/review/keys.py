"""Keys of a review: on the canvas, and inside its own widgets, which would take arrows for themselves."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QShortcut, QWidget

from napari_kdseg.comparison.review.marks import Verdict

if TYPE_CHECKING:
    from napari.viewer import Viewer


KEYS = {
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


class Reviewer(Protocol):
    """What keys can ask for."""

    def step(self, step: int) -> None:
        """Go to the next (1) or the previous (-1) region."""

    def mark(self, verdict: Verdict) -> None:
        """Say who is right in the present region."""

    def undo(self) -> None:
        """Take the last mark back."""

    def redo(self) -> None:
        """Give it again."""


VERDICT_KEYS = {
    Verdict.FIRST: "Alt-T",
    Verdict.SECOND: "Alt-D",
    Verdict.BOTH: "Alt-B",
    Verdict.NEITHER: "Alt-N",
    Verdict.UNCLEAR: "Alt-U",
}
ACTIONS: dict[str, Callable[[Reviewer], None]] = {
    "Alt-Right": lambda box: box.step(1),
    "Alt-Left": lambda box: box.step(-1),
    "Alt-Z": lambda box: box.undo(),
    "Alt-Shift-Z": lambda box: box.redo(),
    **{key: lambda box, verdict=verdict: box.mark(verdict) for verdict, key in VERDICT_KEYS.items()},  # type: ignore[misc]
}


def key_tip(key: str, what: str = "") -> str:
    """Return a tooltip: what a key does, and the key."""
    return f"{what or KEYS[key]} ({key.replace('-', '+')})"


def take_keys(viewer: Viewer, box: Reviewer) -> None:
    """Have the keys on the canvas of ``viewer`` act on ``box`` from now on. It is not kept alive."""
    there = weakref.ref(box)

    def bound(action: Callable[[Reviewer], None]) -> Callable[[Viewer], None]:
        def act(_viewer: Viewer) -> None:
            alive = there()
            if alive is None:
                return
            try:
                action(alive)
            except RuntimeError as error:  # its dock was closed
                if "deleted" not in str(error):
                    raise

        return act

    for key, action in ACTIONS.items():
        viewer.bind_key(key, bound(action), overwrite=True)


def take_keys_inside(box: QWidget, reviewer: Reviewer) -> None:
    """Have the same keys act while something inside ``box`` has the focus."""
    for key, action in ACTIONS.items():
        shortcut = QShortcut(QKeySequence(key.replace("-", "+")), box)
        shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        shortcut.activated.connect(lambda action=action: action(reviewer))
