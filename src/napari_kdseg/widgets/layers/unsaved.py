"""Work by hand that no file holds yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_kdseg.widgets.layers.placement import ROLE_KEY
from napari_kdseg.widgets.layers.tissue_layer import painted

if TYPE_CHECKING:
    from napari.layers import Layer, Shapes
    from napari.utils.events import Event
    from napari.viewer import Viewer

UNSAVED_KEY = "kdseg_unsaved"


def watch_shapes(layer: Shapes) -> None:
    """Notice from now on whether shapes of ``layer``, or what they are called, change."""

    def changed(_event: Event) -> None:
        layer.metadata[UNSAVED_KEY] = True

    layer.metadata[UNSAVED_KEY] = False
    layer.events.data.connect(changed)
    layer.events.features.connect(changed)


def saved(layer: Layer) -> None:
    """Count ``layer`` as saved from now on."""
    layer.metadata[UNSAVED_KEY] = False


def unsaved(viewer: Viewer) -> list[str]:
    """Name what was done by hand on the present slide and is in no file."""
    drawn = any(
        layer.metadata.get(ROLE_KEY) == "shapes" and layer.metadata.get(UNSAVED_KEY) and len(layer.data)
        for layer in viewer.layers
    )
    return [name for name, there in (("painted tissue", painted(viewer)), ("drawn shapes", drawn)) if there]
