"""From the mask store of a slide to layers, and what people do with those: show, hide, outline, fade, peek."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from qtpy.QtCore import QObject

from napari_kdseg.widgets.layers.mask_layers import show_codes, show_heat, show_mask, style_mask
from napari_kdseg.widgets.layers.placement import ROLE_KEY, find
from napari_kdseg.widgets.state.background import in_background

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_kdseg.comparison import LazyPyramid
    from napari_kdseg.masks import MaskPyramid
    from napari_kdseg.widgets.state.session import Session

    Map = MaskPyramid | LazyPyramid

MASKS = ("teacher", "student")
CORRECTED = ("mended_by", "confidence", "change")
GROUPS = {
    "teacher": ("teacher",),
    "corrected": CORRECTED,
    "student": ("student",),
    "disagreement": ("disagreement",),
}
CORRECTED_ON_ANNOTATED = "probabilities/corrected_on_annotated"
TEACHER_ON_ANNOTATED = "probabilities/teacher_on_annotated"


def read_store(path: Path) -> dict[str, Map]:
    """Open every map of a store as a pyramid, by the role it plays here.

    Runs off the GUI thread. Disagreement and change are lazy: computed where they are looked at.
    """
    if not path.exists():
        return {}
    from napari_kdseg.comparison import change_levels, disagreement_levels, probability_levels
    from napari_kdseg.masks import open_masks

    # A layer takes the window a moment to make: not for masks that show nothing yet.
    masks = {name: mask for name, mask in open_masks(path).items() if not mask.is_empty}
    found: dict[str, Map] = {role: masks[role] for role in MASKS if role in masks}
    if "teacher" in masks and "student" in masks:
        found["disagreement"] = disagreement_levels(masks["teacher"], masks["student"])
    if "mended_by" in masks:
        found["mended_by"] = masks["mended_by"]
    if CORRECTED_ON_ANNOTATED in masks:
        found["confidence"] = probability_levels(masks[CORRECTED_ON_ANNOTATED])
        found["change"] = change_levels(masks[TEACHER_ON_ANNOTATED], masks[CORRECTED_ON_ANNOTATED])
    return found


class Overlays(QObject):
    """Keeps the layers of the masks in step with the store of the session's slide.

    The store is read off the GUI thread, once at a time. Whoever asks meanwhile has it read once more afterwards, so
    that what is shown last is what was on disk last.

    Parameters
    ----------
    session
        Its ``masks_changed`` asks.
    """

    def __init__(self, session: Session):
        super().__init__(session)
        self._session = session
        self._reading = False
        self._asked_again = False
        session.masks_changed.connect(self.refresh)

    def refresh(self) -> None:
        """Show what the store of the session's slide holds now."""
        session, slide, path = self._session, self._session.slide, self._session.masks_path()
        if path is None:
            return
        if self._reading:
            self._asked_again = True
            return
        self._reading = True

        def show(found: dict[str, Map]) -> None:
            self._end_reading()
            if session.slide is slide and not session.closed:
                show_found(session, found)

        in_background(lambda: read_store(path), show, lambda _sentence: self._end_reading())

    def _end_reading(self) -> None:
        again, self._reading, self._asked_again = self._asked_again, False, False
        if again:
            self.refresh()


def show_found(session: Session, found: dict[str, Map]) -> None:
    """Bring the layers in line with ``found`` (from :func:`read_store`); a map that is gone loses its layer."""
    viewer, mpp = session.viewer, session.slide.mpp if session.slide else None
    fresh = [role for role in found if find(viewer, role) is None]
    for role in MASKS:
        if role in found:
            show_mask(viewer, role, cast("MaskPyramid", found[role]), mpp, outline=session.outline)
    if "disagreement" in found:
        show_codes(viewer, "disagreement", found["disagreement"], mpp)
    if "mended_by" in found:
        show_codes(viewer, "mended_by", found["mended_by"], mpp)
    for role in ("confidence", "change"):
        if role in found:
            show_heat(viewer, role, found[role], mpp)
    for role in (*MASKS, *CORRECTED, "disagreement"):
        layer = find(viewer, role)
        if layer is not None and role not in found:
            viewer.layers.remove(layer)
    for role in ("disagreement", "confidence", "change"):
        layer = find(viewer, role)
        if layer is not None and role in fresh:
            layer.visible = False
    session.overlays_changed.emit()


def layer_of(session: Session, group: str) -> Layer | None:
    """The layer that stands for ``group`` now: of the corrected label, the view that is chosen."""
    role = session.corrected_view if group == "corrected" else group
    return find(session.viewer, role)


def toggle(session: Session, group: str) -> None:
    """Show or hide the overlay of ``group``."""
    layer = layer_of(session, group)
    if layer is not None:
        layer.visible = not layer.visible


def choose_corrected_view(session: Session, role: str) -> None:
    """Show the corrected label as ``role``: who mended it, its confidence, or its change from the teacher's."""
    present = layer_of(session, "corrected")
    visible = present is None or present.visible
    session.corrected_view = role
    for other in CORRECTED:
        layer = find(session.viewer, other)
        if layer is not None:
            layer.visible = visible and other == role


def set_outline(session: Session, outline: bool) -> None:
    """Draw the masks as outlines in the colour of their source, or filled in the colours of the classes."""
    session.outline = outline
    for role in MASKS:
        layer = find(session.viewer, role)
        if layer is not None:
            style_mask(layer, role, outline=outline)


def fade(session: Session, change: float) -> None:
    """Make every overlay more or less opaque by ``change`` (of 1)."""
    for layer in session.viewer.layers:
        if layer.metadata.get(ROLE_KEY) in (*MASKS, *CORRECTED, "disagreement"):
            layer.opacity = min(1.0, max(0.05, layer.opacity + change))


def shown(session: Session) -> list[Layer]:
    """Our overlays that are visible now: what a peek at the bare slide hides."""
    return [
        layer
        for layer in session.viewer.layers
        if layer.visible and layer.metadata.get(ROLE_KEY, "slide") != "slide"
    ]
