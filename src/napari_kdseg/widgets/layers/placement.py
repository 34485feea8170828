"""Where our layers lie, in space and in the list: one place for scale, units and order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_kdseg.slides.geometry import Pair, corner_transform, layer_transform, units

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

LayerTuple = tuple[Any, dict[str, Any], str]
ROLE_KEY, SLIDE_KEY, SOURCE_KEY, COLOURS_KEY = "kdseg_role", "kdseg_slide", "kdseg_source", "kdseg_colours"
ANNOTATION_KEY = "kdseg_annotation"
"""What our layers say in their metadata: their role, their slide, the slide whose pixels they show, its colours, and
where the annotation that they show comes from."""

ORDER = (
    "slide",
    "stain",
    "tissue",
    "annotation",
    "confidence",
    "change",
    "mended_by",
    "teacher",
    "student",
    "disagreement",
)


def placement(downsample: float | tuple[float, float], mpp: tuple[float, float] | None) -> dict[str, Any]:
    """Scale, translation and units of a layer whose pixels are ``downsample`` level-0 pixels wide."""
    scale, translate = layer_transform(downsample, mpp)
    return {"scale": scale, "translate": translate, "units": units(mpp), "axis_labels": ("y", "x")}


def find(viewer: Viewer, role: str) -> Layer | None:
    """Return the layer that plays ``role``, or ``None``."""
    return next((layer for layer in viewer.layers if layer.metadata.get(ROLE_KEY) == role), None)


def put_in_order(viewer: Viewer) -> None:
    """Bring our layers into their fixed order, above the slide, without touching layers of other plugins."""
    ours = [layer for layer in viewer.layers if layer.metadata.get(ROLE_KEY) in ORDER]
    wanted = sorted(ours, key=lambda layer: ORDER.index(layer.metadata[ROLE_KEY]))
    for index, layer in zip(sorted(viewer.layers.index(layer) for layer in ours), wanted, strict=True):
        viewer.layers.move(viewer.layers.index(layer), index)


def to_corner(layer: Layer, mpp: Pair | None) -> tuple[np.ndarray, np.ndarray]:
    """Return matrix and offset, (y, x), that turn the data of a layer into level-0 pixels from the corner."""
    scale, translate = (np.array(pair) for pair in corner_transform(mpp))
    corners = [np.zeros(layer.ndim), *np.eye(layer.ndim)[-2:]]
    origin, down, across = (
        (np.array(layer.data_to_world(corner))[-2:] - translate) / scale for corner in corners
    )
    # rounded, so that a layer of ours is in place exactly
    return np.round(np.column_stack([down - origin, across - origin]), 9), np.round(origin, 9)
