"""Masks and what is computed from them as napari layers: shown, renewed, outlined or filled."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_kdseg.widgets._compat import as_multiscale
from napari_kdseg.widgets.layers import colours
from napari_kdseg.widgets.layers.placement import ROLE_KEY, find, placement, put_in_order

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Layer
    from napari.viewer import Viewer

    from napari_kdseg.comparison import LazyPyramid
    from napari_kdseg.masks import MaskPyramid

    Pyramid = MaskPyramid | LazyPyramid

MASKS_KEY = "kdseg_masks"
OUTLINES = {"teacher": 4, "student": 2}
"""Widths of outlines inward from the edge. Where two edges coincide the student's, drawn above, leaves a rim of the
teacher's inside: one is nested in the other, not drawn over it."""
LAYER_NAMES = {
    "teacher": "teacher mask",
    "student": "student mask",
    "mended_by": "corrected: who mended it",
    "confidence": "corrected: probability of the annotated class",
    "change": "corrected: change from the teacher's",
    "disagreement": "disagreement",
}


@dataclass(frozen=True)
class MaskStyle:
    """How masks are drawn.

    Attributes
    ----------
    outline
        Outlines in the colour of the source; otherwise filled in the colours of the classes.
    palette
        Those colours, by name of the class.
    hidden
        Names of classes that are not drawn.
    """

    outline: bool
    palette: Mapping[str, str]
    hidden: Set[str] = frozenset()


def show_mask(
    viewer: Viewer, role: str, masks: MaskPyramid, mpp: tuple[float, float] | None, style: MaskStyle
) -> Labels:
    """Show or renew the mask of the teacher or the student."""
    layer = _labels(viewer, role, masks, mpp)
    layer.metadata[MASKS_KEY] = masks
    layer.features = {"index": list(range(len(masks.classes))), "class": list(masks.classes)}
    style_mask(layer, role, style)
    return layer


def style_mask(layer: Labels, role: str, style: MaskStyle) -> None:
    """Outline in the colour of the source, or fill in the colours of the classes."""
    shown = {
        index: colours.SOURCES[role] if style.outline else style.palette[name]
        for index, name in enumerate(layer.metadata[MASKS_KEY].classes)
        if index and name not in style.hidden
    }
    contour = OUTLINES[role] if style.outline else 0
    if layer.contour != contour:  # napari slices again
        layer.contour = contour
    layer.colormap = colours.label_colormap(shown)


def show_codes(viewer: Viewer, role: str, pyramid: Pyramid, mpp: tuple[float, float] | None) -> Labels:
    """Show or renew a map of codes: the disagreement, or who mended a pixel."""
    table = colours.DISAGREEMENT if role == "disagreement" else colours.MENDED_BY
    layer = _labels(viewer, role, pyramid, mpp)
    layer.colormap = colours.label_colormap({code: colour for code, (_, colour) in table.items()})
    layer.features = {"index": list(table), "meaning": [text for text, _ in table.values()]}
    return layer


def show_heat(viewer: Viewer, role: str, pyramid: Pyramid, mpp: tuple[float, float] | None) -> Image:
    """Show or renew a map of floats: confidence in [0, 1] or change in [-1, 1]; NaN is transparent."""
    layer = _renewed(viewer, role, pyramid, mpp)
    if layer is not None:
        return layer
    low = 0.0 if role == "confidence" else -1.0
    colormap = colours.confidence_colormap() if role == "confidence" else colours.change_colormap()
    layer = viewer.add_image(
        as_multiscale(pyramid.levels),
        name=LAYER_NAMES[role],
        multiscale=True,
        rgb=False,
        contrast_limits=(low, 1.0),
        colormap=colormap,
        blending="translucent",
        interpolation2d="nearest",
        metadata={ROLE_KEY: role},
        **placement(pyramid.downsample, mpp),
    )
    put_in_order(viewer)
    return layer


def _renewed(viewer: Viewer, role: str, pyramid: Pyramid, mpp: tuple[float, float] | None) -> Layer | None:
    """Give the layer that plays ``role`` new data, or return ``None`` where there is none yet."""
    layer = find(viewer, role)
    if layer is not None:
        layer.data = as_multiscale(pyramid.levels)
        for name, value in placement(pyramid.downsample, mpp).items():
            setattr(layer, name, value)
    return layer


def _labels(viewer: Viewer, role: str, pyramid: Pyramid, mpp: tuple[float, float] | None) -> Labels:
    layer = _renewed(viewer, role, pyramid, mpp)
    if layer is not None:
        return layer
    layer = viewer.add_labels(
        as_multiscale(pyramid.levels),
        name=LAYER_NAMES[role],
        multiscale=True,
        metadata={ROLE_KEY: role},
        **placement(pyramid.downsample, mpp),
    )
    put_in_order(viewer)
    return layer
