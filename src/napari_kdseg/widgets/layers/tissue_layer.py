"""The tissue mask as a layer that can be painted on with napari's own tools."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_kdseg.widgets.layers import colours
from napari_kdseg.widgets.layers.placement import ROLE_KEY, find, placement, put_in_order

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

    from napari_kdseg.slides import Slide, TissueMask

MASK_KEY, PAINTED_KEY = "kdseg_tissue", "kdseg_painted"


def show_tissue(viewer: Viewer, found: TissueMask, slide: Slide) -> Labels:
    """Show or renew the tissue mask; one level, so that it can be painted on."""
    pixels = found.mask.astype(np.uint8)
    layer = find(viewer, "tissue")
    if layer is not None and layer.data.shape == pixels.shape:
        layer.data = pixels
        layer.metadata.update({MASK_KEY: found, PAINTED_KEY: False})
        return layer
    if layer is not None:
        viewer.layers.remove(layer)
    layer = viewer.add_labels(
        pixels,
        name="tissue",
        opacity=0.35,
        colormap=colours.label_colormap({1: colours.SKY_BLUE}),
        metadata={ROLE_KEY: "tissue", MASK_KEY: found, PAINTED_KEY: False},
        features={"index": [0, 1], "what": ["glass", "tissue"]},
        **placement(found.downsample, slide.mpp),
    )
    layer.events.paint.connect(lambda _event: layer.metadata.update({PAINTED_KEY: True}))
    put_in_order(viewer)
    return layer


def painted(viewer: Viewer) -> bool:
    """Tell whether somebody painted on the mask since it was made or kept."""
    layer = find(viewer, "tissue")
    return layer is not None and layer.metadata[PAINTED_KEY]


def forget_painting(viewer: Viewer) -> None:
    """Count the mask as unpainted from now on: it was kept, or given up."""
    layer = find(viewer, "tissue")
    if layer is not None:
        layer.metadata[PAINTED_KEY] = False


def shown_tissue(viewer: Viewer) -> TissueMask | None:
    """Return the tissue mask as it is drawn now, or ``None`` if none is shown."""
    layer = find(viewer, "tissue")
    if layer is None:
        return None
    return replace(layer.metadata[MASK_KEY], mask=np.asarray(layer.data) != 0, edited=True)


def paint_tissue(viewer: Viewer, brush_um: float = 200.0) -> None:
    """Take up napari's brush on the tissue mask, of a size that people can see."""
    layer = find(viewer, "tissue")
    if layer is None:
        return
    layer.visible = True
    viewer.layers.selection.active = layer
    layer.selected_label = 1
    layer.brush_size = int(np.clip(brush_um / max(layer.scale), 3, 60))
    layer.mode = "paint"


def hide_tissue(viewer: Viewer) -> None:
    """Take the tissue mask away."""
    layer = find(viewer, "tissue")
    if layer is not None:
        viewer.layers.remove(layer)
