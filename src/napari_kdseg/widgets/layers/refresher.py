"""Finer tiles brought to the screen when they have been decoded.

A layer of a slide shows at once what is in memory, coarser where that is all there is. When finer tiles have arrived
the slide says so from a decode thread; here that becomes a refresh of its layers in the GUI thread, at most ten times a
second. It works with napari's asynchronous slicing on or off, and leaves that setting alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Qt, QTimer, Signal

from napari_kdseg.widgets.layers.placement import SOURCE_KEY
from napari_kdseg.widgets.state.background import emitting

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.utils.events import Event
    from napari.viewer import Viewer

    from napari_kdseg.slides import Slide

REFRESH_MS = 100


class LayerRefresher(QObject):
    """Refreshes the layers of one viewer whose pixels come from slides.

    Parameters
    ----------
    viewer
        Its layers are followed from now on, whoever adds them.
    parent
        Owner of this object.
    """

    _arrived = Signal(object)

    def __init__(self, viewer: Viewer, parent: QObject):
        super().__init__(parent)
        self._layers: dict[Layer, Slide] = {}
        self._callbacks: dict[int, tuple[Slide, Callable[[], None]]] = {}
        self._waiting: set[int] = set()
        self._pause = QTimer(self)
        self._pause.setSingleShot(True)
        self._pause.setInterval(REFRESH_MS)
        self._pause.timeout.connect(self._refresh)
        self._arrived.connect(self._on_arrival, Qt.ConnectionType.QueuedConnection)
        viewer.layers.events.inserted.connect(lambda event: self._take(event.value))
        viewer.layers.events.removed.connect(lambda event: self._leave(event.value))
        for layer in viewer.layers:
            self._take(layer)

    def _take(self, layer: Layer) -> None:
        if SOURCE_KEY in layer.metadata:
            layer.events.data.connect(self._on_data)  # it may come to show another slide
            self._follow(layer)

    def _on_data(self, event: Event) -> None:
        self._follow(event.source)

    def _follow(self, layer: Layer) -> None:
        """Refresh ``layer`` when tiles of the slide that it shows now arrive."""
        source = layer.metadata.get(SOURCE_KEY)
        if self._layers.get(layer) is source:
            return
        self._leave(layer)
        if source is None:
            return
        self._layers[layer] = source
        if id(source) not in self._callbacks:
            callback = emitting(self, "_arrived", id(source))
            self._callbacks[id(source)] = (source, callback)
            source.arrivals.connect(callback)
        # napari drew the layer before it told of it: what arrived meanwhile was told to nobody
        self._arrived.emit(id(source))

    def _leave(self, layer: Layer) -> None:
        """Follow ``layer`` no longer."""
        source = self._layers.pop(layer, None)
        if source is not None and all(other is not source for other in self._layers.values()):
            _, callback = self._callbacks.pop(id(source))
            source.arrivals.disconnect(callback)

    def _on_arrival(self, source: int) -> None:
        self._waiting.add(source)
        if not self._pause.isActive():
            self._refresh()

    def _refresh(self) -> None:
        """Show what has arrived, then leave the window time for other things."""
        arrived, self._waiting = self._waiting, set()
        if not arrived:
            return
        for layer, source in self._layers.items():
            if id(source) in arrived and layer.visible:
                layer.refresh(thumbnail=False, highlight=False, extent=False)
        self._pause.start()
