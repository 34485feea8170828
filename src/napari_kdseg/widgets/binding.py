"""A napari viewer and its session: what happens in the one is told to the other, and what that wants is shown."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject

from napari_kdseg.slides import open_slide
from napari_kdseg.widgets._compat import keep_llvms_apart, real_viewer, when_window_closes
from napari_kdseg.widgets.keys import Keys
from napari_kdseg.widgets.layers.magnification import MagnificationText
from napari_kdseg.widgets.layers.overlays import Overlays
from napari_kdseg.widgets.layers.placement import (
    ANNOTATION_KEY,
    ROLE_KEY,
    SLIDE_KEY,
    SOURCE_KEY,
    LayerTuple,
    find,
)
from napari_kdseg.widgets.layers.refresher import LayerRefresher
from napari_kdseg.widgets.layers.slide_layers import slide_layers
from napari_kdseg.widgets.state.background import in_background
from napari_kdseg.widgets.state.camera import go_to
from napari_kdseg.widgets.state.session import Session, SlideRequest

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.utils.events import Event
    from napari.viewer import Viewer

_SESSIONS: weakref.WeakKeyDictionary[Viewer, Session] = weakref.WeakKeyDictionary()


def session_of(viewer: Viewer) -> Session:
    """Return the one session of ``viewer``, made and bound to it on first use."""
    viewer = real_viewer(viewer)
    if viewer not in _SESSIONS:
        keep_llvms_apart()
        _SESSIONS[viewer] = session = Session(viewer)
        Binding(viewer, session)
    return _SESSIONS[viewer]


def show_slide(viewer: Viewer, made: list[LayerTuple]) -> None:
    """Show the layers of :func:`slide_layers` instead of whatever slide and masks are shown now."""
    session_of(viewer)  # it brings finer tiles to the screen when they arrive
    for layer in [layer for layer in viewer.layers if ROLE_KEY in layer.metadata]:
        viewer.layers.remove(layer)
    for data, options, kind in made:
        if kind == "image":
            viewer.add_image(data, **options)
        else:
            viewer.add_labels(data, **options).contour = 2
    viewer.canvas.overlays.scale_bar.visible = True
    layer = find(viewer, "slide")
    go_to(viewer, None if layer is None else layer.metadata.get(SOURCE_KEY))


class Binding(QObject):
    """Follows the layers and the camera of a viewer for its session, and opens what slide the session wants.

    Parameters
    ----------
    viewer, session
        The two; the session owns this.
    """

    def __init__(self, viewer: Viewer, session: Session):
        super().__init__(session)
        self._session = session
        self._refresher = LayerRefresher(viewer, self)
        self._overlays = Overlays(session)
        self._magnification = MagnificationText(session)
        Keys(session)
        session.slide_wanted.connect(self._open)
        when_window_closes(viewer, session.end)
        camera = viewer.scene.camera
        for event in (camera.events.center, camera.events.zoom, viewer.canvas.events.size):
            event.connect(self._on_view)
        viewer.layers.events.inserted.connect(lambda event: self._take(event.value))
        for layer in viewer.layers:
            self._take(layer)

    def _open(self, request: SlideRequest) -> None:
        def work() -> list[LayerTuple]:
            return slide_layers(open_slide(request.path, mpp=request.mpp), request.annotation)

        def show(made: list[LayerTuple]) -> None:
            if not self._session.closed:
                show_slide(self._session.viewer, made)

        in_background(work, show, request.on_failed)

    def _take(self, layer: Layer) -> None:
        """Follow a layer of ours, whoever added it: our docks, napari's reader, a sample."""
        if ROLE_KEY in layer.metadata:
            layer.events.visible.connect(self._on_restyled)
            layer.events.opacity.connect(self._on_restyled)
        slide = layer.metadata.get(SLIDE_KEY)
        if slide is not None and slide is not self._session.slide:
            self._session.set_slide(slide)
        annotation = layer.metadata.get(ANNOTATION_KEY)
        if annotation is not None:
            self._session.set_annotation(annotation)

    def _on_view(self, _event: Event) -> None:
        self._session.view_changed.emit()

    def _on_restyled(self, _event: Event) -> None:
        self._session.overlays_restyled.emit()
