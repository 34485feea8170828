"""A slide with its overlays, on the screen or as a picture: what ``kdseg view`` and the demo show."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import napari
import numpy as np
from PIL import Image
from qtpy.QtWidgets import QApplication

from napari_kdseg.errors import OutputError, SlideError, explain
from napari_kdseg.masks.names import meant
from napari_kdseg.slides import open_slide
from napari_kdseg.widgets import legend
from napari_kdseg.widgets.binding import session_of, show_slide
from napari_kdseg.widgets.layers import overlays
from napari_kdseg.widgets.layers.placement import ORDER, SOURCE_KEY, find
from napari_kdseg.widgets.layers.slide_layers import slide_layers
from napari_kdseg.widgets.state.background import pending
from napari_kdseg.widgets.state.camera import go_to
from napari_kdseg.widgets.state.team import load_run
from napari_kdseg.widgets.views.views import MASKS, views_of
from napari_kdseg.widgets.virtual_display import ensure_display
from napari_kdseg.widgets.workspace import open_workspace, raise_dock

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_kdseg.widgets.state.session import Session

BUSY_S = 0.1
LONGEST_S = 120.0
"""Seconds after which a picture is taken although something is still to come."""


def show(
    slide_path: str,
    *,
    stores: Sequence[Path] = (),
    annotation: str | None = None,
    run: Path | None = None,
    slide_mpp: float | None = None,
    region: tuple[int, int, int, int] | None = None,
) -> None:
    """Open the window with everything in place and return when it is closed."""
    viewer = napari.Viewer(title="KD Seg")
    docks = open_workspace(viewer)
    prepare(viewer, slide_path, stores=stores, annotation=annotation, slide_mpp=slide_mpp, region=region)
    if run is not None:
        load_run(session_of(viewer), run)
    if stores:
        raise_dock(docks["4 Compare"])
    napari.run()


def screenshot(
    slide_path: str,
    picture: Path,
    *,
    stores: Sequence[Path] = (),
    annotation: str | None = None,
    slide_mpp: float | None = None,
    region: tuple[int, int, int, int] | None = None,
    window: bool = False,
    run: Path | None = None,
    dock: str = "4 Compare",
    panes: bool = False,
    hide: Sequence[str] = (),
) -> Path:
    """Render the slide with its overlays and a legend into ``picture``, without a person.

    Parameters
    ----------
    slide_path, annotation
        As for :func:`~napari_kdseg.slides.open_slide` and :func:`~napari_kdseg.slides.open_annotation`.
    picture
        PNG file to write.
    stores
        Mask stores to lay over the slide.
    region
        ``(y, x, height, width)`` in level-0 pixels to show; the whole slide when absent.
    window
        The whole window with its docks instead of the canvas with a legend.
    run, dock
        For a picture of the window: a run folder whose networks to load, and the dock to show.
    panes
        Teacher, corrected label and student side by side instead of over one another.
    hide
        Roles not to show (``"annotation"``, ``"mended_by"``, ``"teacher"`` ...).

    Raises
    ------
    OutputError
        If the picture cannot be written.
    """
    ensure_display()
    viewer = napari.Viewer(title="KD Seg")
    try:
        viewer.window.resize(1500, 940)
        docks = open_workspace(viewer) if window else {}
        prepare(viewer, slide_path, stores=stores, annotation=annotation, slide_mpp=slide_mpp, region=None)
        for role in hide:
            layer = find(viewer, meant(role, ORDER))
            if layer is not None:
                layer.visible = False
        if window:
            if run is not None:
                load_run(session_of(viewer), run)
            raise_dock(docks[dock])
        if panes:
            show_panes(session_of(viewer))
        settle(viewer=viewer)
        go_to(viewer, session_of(viewer).slide, region)
        settle(viewer=viewer)
        shot = viewer.screenshot(canvas_only=not window, flash=False)
        drawn = shot[..., :3] if window else legend.draw(shot, legend.entries(viewer), top=not panes)
        try:
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(drawn)).save(picture)
        except OSError as error:
            raise OutputError(f"The picture {picture.name} could not be written. {explain(error)}") from error
    finally:
        viewer.close()
    return picture


def prepare(
    viewer: Viewer,
    slide_path: str,
    *,
    stores: Sequence[Path],
    annotation: str | None,
    slide_mpp: float | None,
    region: tuple[int, int, int, int] | None,
) -> None:
    """Put slide, annotation and the overlays of every store into ``viewer`` and look at ``region``."""
    missing = [str(store) for store in stores if not Path(store).is_dir()]
    if missing:
        raise SlideError(
            f"There are no masks at {missing[0]}. Make them with 'kdseg predict', or check the path."
        )
    slide = open_slide(slide_path, mpp=slide_mpp)
    session = session_of(viewer)
    show_slide(viewer, slide_layers(slide, annotation))
    session.store = Path(stores[0]) if stores else None
    for store in stores:
        overlays.show_found(session, overlays.read_store(Path(store)))
    go_to(viewer, slide, region)


def show_panes(session: Session) -> None:
    """Show the slide with each of its masks in a pane of its own."""
    for role in ("annotation", "disagreement"):
        layer = find(session.viewer, role)
        if layer is not None:
            layer.visible = False
    there = [group for group in MASKS if overlays.layer_of(session, group) is not None]
    session.view_settings.sides = tuple([*there, "", "", ""][:3])  # type: ignore[assignment] # three of them
    views_of(session).show("side by side")


def settle(seconds: float = 1.0, viewer: Viewer | None = None) -> None:
    """Let the window draw until nothing new has come for a while: work of the docks, tiles of the slides shown."""
    sources = [] if viewer is None else [layer.metadata.get(SOURCE_KEY) for layer in viewer.layers]
    start = calm = time.monotonic()
    while time.monotonic() < min(calm + seconds, start + LONGEST_S):
        began = time.monotonic()
        QApplication.processEvents()
        busy = time.monotonic() - began > BUSY_S  # what was drawn may ask for more the next time
        time.sleep(0.02)
        if busy or pending() or any(source.waiting for source in sources if source is not None):
            calm = time.monotonic()
