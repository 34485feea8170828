"""Where our layers lie, in space and in the list: one place for scale, units and order."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_kdseg.slides import layer_transform

LayerTuple = tuple[Any, dict[str, Any], str]
ROLE_KEY, SLIDE_KEY, SOURCE_KEY, COLOURS_KEY = "kdseg_role", "kdseg_slide", "kdseg_source", "kdseg_colours"
"""What our layers say in their metadata: their part, their slide, the slide whose pixels they show, its colours."""

ORDER = (
    "slide",
    "stain",
    "tissue",
    "annotation",
    "confidence",
    "change",
    "stage",
    "teacher",
    "student",
    "disagreement",
)


def placement(downsample: float | tuple[float, float], mpp: tuple[float, float] | None) -> dict[str, Any]:
    """Scale, translation and units of a layer whose pixels are ``downsample`` level-0 pixels wide."""
    scale, translate = layer_transform(downsample, mpp)
    units = ("um", "um") if mpp is not None else ("pixel", "pixel")
    return {"scale": scale, "translate": translate, "units": units, "axis_labels": ("y", "x")}


def find(viewer: Any, role: str) -> Any:
    """Return the layer that plays ``role``, or ``None``."""
    return next((layer for layer in viewer.layers if layer.metadata.get(ROLE_KEY) == role), None)


def go_to(viewer: Any, slide: Any, region: tuple[int, int, int, int] | None = None) -> None:
    """Centre ``region`` (level-0 pixels) and zoom so that it fills the canvas; without one, what was scanned."""
    if region is None:
        region = None if slide is None else slide.bounds
    if region is None:
        viewer.fit_to_view()
        return
    mpp = np.asarray(slide.mpp or (1.0, 1.0))
    top, left, height, width = region
    size = np.asarray((height, width)) * mpp
    viewer.scene.camera.center = (np.asarray((top + height / 2, left + width / 2)) - 0.5) * mpp
    viewer.scene.camera.zoom = float((np.asarray(viewer.canvas.size) / size).min())


def put_in_order(viewer: Any) -> None:
    """Bring our layers into their fixed order, above the slide, without touching layers of other plugins."""
    ours = [layer for layer in viewer.layers if layer.metadata.get(ROLE_KEY) in ORDER]
    wanted = sorted(ours, key=lambda layer: ORDER.index(layer.metadata[ROLE_KEY]))
    for place, layer in zip(sorted(viewer.layers.index(layer) for layer in ours), wanted, strict=True):
        viewer.layers.move(viewer.layers.index(layer), place)
