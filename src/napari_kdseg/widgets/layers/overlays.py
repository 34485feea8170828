"""From the mask store of a slide to layers, and what people do with those: show, hide, outline, fade, peek."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_kdseg.widgets.layers import mask_layers as layers
from napari_kdseg.widgets.state.background import in_background

if TYPE_CHECKING:
    from napari_kdseg.widgets.state.session import Session

MASKS = ("teacher", "student")
CORRECTED = ("stage", "confidence", "change")
GROUPS = {
    "teacher": ("teacher",),
    "corrected": CORRECTED,
    "student": ("student",),
    "disagreement": ("disagreement",),
}
CORRECTED_ON_ANNOTATED = "probabilities/corrected_on_annotated"
TEACHER_ON_ANNOTATED = "probabilities/teacher_on_annotated"


def read_store(path: Path) -> dict[str, Any]:
    """Open every map of a store as a pyramid, by the role it plays here.

    Runs off the GUI thread. Disagreement and change are lazy: computed where they are looked at.
    """
    if not path.exists():
        return {}
    from napari_kdseg.comparison import change_levels, disagreement_levels, probability_levels
    from napari_kdseg.masks import open_masks

    # A layer takes the window a moment to make: not for masks that show nothing yet.
    masks = {name: mask for name, mask in open_masks(path).items() if not mask.is_empty}
    found: dict[str, Any] = {role: masks[role] for role in MASKS if role in masks}
    if "teacher" in masks and "student" in masks:
        found["disagreement"] = disagreement_levels(masks["teacher"], masks["student"])
    if "stage" in masks:
        found["stage"] = masks["stage"]
    if CORRECTED_ON_ANNOTATED in masks:
        found["confidence"] = probability_levels(masks[CORRECTED_ON_ANNOTATED])
        found["change"] = change_levels(masks[TEACHER_ON_ANNOTATED], masks[CORRECTED_ON_ANNOTATED])
    return found


def refresh(session: Session) -> None:
    """Show what the store of the session's slide holds now; a refresh under way is not overtaken by another."""
    path = session.masks_path()
    if path is None or session.refreshing:
        return
    session.refreshing = True
    slide = session.slide

    def show(found: dict[str, Any]) -> None:
        session.refreshing = False
        if session.slide is slide and session.viewer is not None:
            show_found(session, found)

    def failed(_sentence: str) -> None:
        session.refreshing = False

    in_background(lambda: read_store(path), show, failed)


def show_found(session: Session, found: dict[str, Any]) -> None:
    """Bring the layers in line with ``found`` (from :func:`read_store`); a map that is gone loses its layer."""
    viewer, mpp = session.viewer, session.slide.mpp if session.slide else None
    fresh = [role for role in found if layers.find(viewer, role) is None]
    for role in MASKS:
        if role in found:
            layers.show_mask(viewer, role, found[role], mpp, outline=session.outline)
    if "disagreement" in found:
        layers.show_codes(viewer, "disagreement", found["disagreement"], mpp)
    if "stage" in found:
        layers.show_codes(viewer, "stage", found["stage"], mpp)
    for role in ("confidence", "change"):
        if role in found:
            layers.show_heat(viewer, role, found[role], mpp)
    for role in (*MASKS, *CORRECTED, "disagreement"):
        layer = layers.find(viewer, role)
        if layer is not None and role not in found:
            viewer.layers.remove(layer)
    for role in ("disagreement", "confidence", "change"):
        if role in fresh:
            layers.find(viewer, role).visible = False
    session.overlays_changed.emit()


def layer_of(session: Session, group: str) -> Any | None:
    """The layer that stands for ``group`` now: of the corrected label, the view that is chosen."""
    role = session.corrected_view if group == "corrected" else group
    return layers.find(session.viewer, role)


def toggle(session: Session, group: str) -> None:
    """Show or hide the overlay of ``group``."""
    layer = layer_of(session, group)
    if layer is not None:
        layer.visible = not layer.visible


def choose_corrected_view(session: Session, role: str) -> None:
    """Show the corrected label as ``role``: its stage map, its confidence, or its change from the teacher's."""
    present = layer_of(session, "corrected")
    visible = present is None or present.visible
    session.corrected_view = role
    for other in CORRECTED:
        layer = layers.find(session.viewer, other)
        if layer is not None:
            layer.visible = visible and other == role


def set_outline(session: Session, outline: bool) -> None:
    """Draw the masks as outlines in the colour of their source, or filled in the colours of the classes."""
    session.outline = outline
    for role in MASKS:
        layer = layers.find(session.viewer, role)
        if layer is not None:
            layers.style_mask(layer, role, outline=outline)


def fade(session: Session, change: float) -> None:
    """Make every overlay more or less opaque by ``change`` (of 1)."""
    for layer in session.viewer.layers:
        if layer.metadata.get(layers.ROLE_KEY) in (*MASKS, *CORRECTED, "disagreement"):
            layer.opacity = min(1.0, max(0.05, layer.opacity + change))


def shown(session: Session) -> list[Any]:
    """Our overlays that are visible now: what a peek at the bare slide hides."""
    return [
        layer
        for layer in session.viewer.layers
        if layer.visible and layer.metadata.get(layers.ROLE_KEY, "slide") != "slide"
    ]
