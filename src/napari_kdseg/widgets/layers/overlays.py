"""From the mask store of a slide to layers, and what people do with those: show, hide, outline, fade, peek."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, cast

from qtpy.QtCore import QObject

from napari_kdseg.colours import CLASSES, as_hex
from napari_kdseg.widgets.layers.mask_layers import (
    MASKS_KEY,
    MaskStyle,
    show_codes,
    show_heat,
    show_mask,
    style_mask,
)
from napari_kdseg.widgets.layers.placement import ROLE_KEY, find
from napari_kdseg.widgets.state.background import in_background
from napari_kdseg.widgets.state.class_colours import choose_colour, palette

if TYPE_CHECKING:
    from napari.layers import Labels, Layer

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
PICTURES = ("slide", "slide copy", "stain")
"""Roles of layers that are the slide, not something laid over it."""
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
    masks = {role: cast("MaskPyramid", found[role]) for role in MASKS if role in found}
    style = _style(session, masks.values())
    for role, mask in masks.items():
        show_mask(viewer, role, mask, mpp, style)
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
    for role in fresh:
        _begin(session, role)
    session.overlays_changed.emit()


def _begin(session: Session, role: str) -> None:
    """Show a new layer as its group was last; of the disagreement and the corrected label only what is wanted."""
    layer = find(session.viewer, role)
    if layer is None:
        return
    group = next(group for group, roles in GROUPS.items() if role in roles)
    layer.opacity = session.view_settings.opacity.get(group, 70) / 100
    if role == "disagreement" or (group == "corrected" and role != session.corrected_view):
        layer.visible = False


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
    session.overlays_changed.emit()


# -- outline or fill, classes, opacity ---------------------------------------------------------------------------------


def masks_of(session: Session) -> list[MaskPyramid]:
    """The masks of teacher and student that are shown."""
    layers = [find(session.viewer, role) for role in MASKS]
    return [
        layer.metadata[MASKS_KEY] for layer in layers if layer is not None and MASKS_KEY in layer.metadata
    ]


def classes_of(session: Session) -> dict[str, str]:
    """The classes of all masks that are shown, background aside, and their colours ``"#rrggbb"``."""
    return palette((mask.classes, mask.colours) for mask in masks_of(session))


def _style(session: Session, masks: Iterable[MaskPyramid]) -> MaskStyle:
    colours = palette((mask.classes, mask.colours) for mask in masks)
    return MaskStyle(session.view_settings.outline, colours, session.hidden_classes)


def restyle(session: Session) -> None:
    """Draw the masks as the session says now."""
    style = _style(session, masks_of(session))
    for role in MASKS:
        layer = find(session.viewer, role)
        if layer is not None and MASKS_KEY in layer.metadata:
            style_mask(cast("Labels", layer), role, style)
    session.overlays_restyled.emit()


def set_outline(session: Session, outline: bool) -> None:
    """Draw the masks as outlines in the colour of their source, or filled in the colours of the classes."""
    session.view_settings.outline = outline
    session.view_settings.keep()
    restyle(session)


def show_class(session: Session, name: str, on: bool) -> None:
    """Draw the class in the masks, or leave it out."""
    (session.hidden_classes.discard if on else session.hidden_classes.add)(name)
    restyle(session)


def only_class(session: Session, name: str) -> None:
    """Draw this class alone; asked again, draw all."""
    others = set(classes_of(session)) - {name}
    alone = others <= session.hidden_classes and name not in session.hidden_classes
    session.hidden_classes -= others | {name}
    if not alone:
        session.hidden_classes |= others
    restyle(session)


def colour_class(session: Session, name: str, colour: str | None) -> None:
    """Give the class this colour everywhere, today and later; ``None``: that of the masks again."""
    choose_colour(name, colour)
    restyle(session)


def use_safe_colours(session: Session) -> None:
    """Give the classes that are shown Okabe and Ito's colours, one each as long as there are any left."""
    for name, colour in zip(classes_of(session), cycle(CLASSES)):
        choose_colour(name, as_hex(colour))
    restyle(session)


def set_opacity(session: Session, group: str, percent: int) -> None:
    """Make the overlays of ``group`` so opaque, and start with that the next time."""
    opacity = session.view_settings.opacity
    session.view_settings.opacity = {**opacity, group: max(5, min(100, percent))}
    session.view_settings.keep()
    for role in GROUPS[group]:
        layer = find(session.viewer, role)
        if layer is not None:
            layer.opacity = session.view_settings.opacity[group] / 100


def fade(session: Session, change: int) -> None:
    """Make every overlay more or less opaque by ``change`` percent."""
    for group in GROUPS:
        layer = layer_of(session, group)
        if layer is not None:
            set_opacity(session, group, round(100 * layer.opacity) + change)


def shown(session: Session) -> list[Layer]:
    """Our overlays that are visible now: what a look at the bare slide hides."""
    return [
        layer
        for layer in session.viewer.layers
        if layer.visible and layer.metadata.get(ROLE_KEY, "slide") not in PICTURES
    ]
