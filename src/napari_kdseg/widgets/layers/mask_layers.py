"""Slides and masks as napari layers: one place for names, colours and where they lie.

Every layer carries micrometres (pixels for a slide without scale) and the transform of its own downsample, so a
mask of any level sits on the slide to the level-0 pixel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_kdseg.widgets._compat import as_multiscale
from napari_kdseg.widgets.layers import colours
from napari_kdseg.widgets.layers.placement import (
    ROLE_KEY,
    SOURCE_KEY,
    LayerTuple,
    find,
    go_to,
    placement,
    put_in_order,
)
from napari_kdseg.widgets.layers.slide_images import image_layers
from napari_kdseg.widgets.state.session import session_of

if TYPE_CHECKING:
    from napari_kdseg.masks import MaskPyramid
    from napari_kdseg.slides import Slide

LAYER_NAMES = {
    "teacher": "teacher mask",
    "student": "student mask",
    "stage": "corrected: who mended it",
    "confidence": "corrected: probability of the annotated class",
    "change": "corrected: change from the teacher's",
    "disagreement": "disagreement",
    "annotation": "annotation",
}


def annotation_layer(source: str, slide: Slide) -> LayerTuple:
    """An annotation of ``slide`` as a napari layer tuple; outlines in black, so that masks stay readable."""
    from napari_kdseg.slides import open_annotation

    annotation = open_annotation(source, slide)
    names = dict(enumerate(annotation.classes))
    options = {
        "name": LAYER_NAMES["annotation"],
        "multiscale": True,
        "metadata": {"kdseg_annotation": source, ROLE_KEY: "annotation"},
        "colormap": colours.label_colormap(dict.fromkeys(range(1, len(names)), colours.BLACK)),
        "opacity": 0.8,
        "features": {"index": list(names), "class": list(names.values())},
        **placement(annotation.downsample, slide.mpp),
    }
    return as_multiscale(annotation.levels), options, "labels"


def slide_layers(slide: Slide, annotation: str | None = None) -> list[LayerTuple]:
    """The slide and, if given, its annotation as layer tuples. Reads files: not for the GUI thread."""
    made = image_layers(slide)
    if annotation is not None:
        made.append(annotation_layer(annotation, slide))
    return made


def show_slide(viewer: Any, made: list[LayerTuple]) -> None:
    """Show the layers of :func:`slide_layers` instead of whatever slide and masks are shown now."""
    session_of(viewer)  # it brings finer tiles to the screen when they arrive
    remove_all(viewer)
    for data, options, kind in made:
        if kind == "image":
            viewer.add_image(data, **options)
        else:
            viewer.add_labels(data, **options).contour = 2
    viewer.canvas.overlays.scale_bar.visible = True
    layer = find(viewer, "slide")
    go_to(viewer, None if layer is None else layer.metadata.get(SOURCE_KEY))


def remove_all(viewer: Any) -> None:
    """Take away every layer of ours; layers of other plugins stay."""
    for layer in [layer for layer in viewer.layers if ROLE_KEY in layer.metadata]:
        viewer.layers.remove(layer)


def show_mask(
    viewer: Any, role: str, masks: MaskPyramid, mpp: tuple[float, float] | None, *, outline: bool = True
) -> Any:
    """Show or renew the mask of the teacher or the student."""
    layer = _labels(viewer, role, masks, mpp)
    layer.metadata["kdseg_masks"] = masks
    layer.features = {"index": list(range(len(masks.classes))), "class": list(masks.classes)}
    style_mask(layer, role, outline=outline)
    return layer


def style_mask(layer: Any, role: str, *, outline: bool) -> None:
    """Outline in the colour of the source, or fill in the colours of the classes."""
    masks = layer.metadata["kdseg_masks"]
    if outline:
        layer.contour = 3
        layer.colormap = colours.source_colormap(role, len(masks.classes))
    else:
        layer.contour = 0
        layer.colormap = colours.class_colormap(len(masks.classes), masks.colours)


def show_codes(viewer: Any, role: str, pyramid: Any, mpp: tuple[float, float] | None) -> Any:
    """Show or renew a map of codes: the disagreement, or the stage map."""
    table = colours.DISAGREEMENT if role == "disagreement" else colours.STAGES
    layer = _labels(viewer, role, pyramid, mpp)
    layer.colormap = colours.label_colormap({code: colour for code, (_, colour) in table.items()})
    layer.features = {"index": list(table), "meaning": [text for text, _ in table.values()]}
    return layer


def show_heat(viewer: Any, role: str, pyramid: Any, mpp: tuple[float, float] | None) -> Any:
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


def _renewed(viewer: Any, role: str, pyramid: Any, mpp: tuple[float, float] | None) -> Any:
    """Give the layer that plays ``role`` new data, or return ``None`` where there is none yet."""
    layer = find(viewer, role)
    if layer is not None:
        layer.data = as_multiscale(pyramid.levels)
        for name, value in placement(pyramid.downsample, mpp).items():
            setattr(layer, name, value)
    return layer


def _labels(viewer: Any, role: str, pyramid: Any, mpp: tuple[float, float] | None) -> Any:
    layer = _renewed(viewer, role, pyramid, mpp)
    if layer is not None:
        return layer
    layer = viewer.add_labels(
        as_multiscale(pyramid.levels),
        name=LAYER_NAMES[role],
        multiscale=True,
        opacity=0.9 if role in ("teacher", "student") else 0.7,
        metadata={ROLE_KEY: role},
        **placement(pyramid.downsample, mpp),
    )
    put_in_order(viewer)
    return layer


def visible_region(viewer: Any, slide: Slide) -> tuple[int, int, int, int]:
    """What of the slide is on screen: (y, x, height, width) in level-0 pixels, cut to the slide.

    Computed from the camera and the canvas: since napari 0.9 ``corner_pixels`` is grown to whole chunks.
    """
    mpp = np.asarray(slide.mpp or (1.0, 1.0))
    centre = np.asarray(viewer.scene.camera.center[-2:]) / mpp
    half = np.asarray(viewer.canvas.size) / viewer.scene.camera.zoom / 2 / mpp
    height, width = slide.levels[0].shape
    top, left = np.clip(np.floor(centre - half), 0, (height, width)).astype(int)
    bottom, right = np.clip(np.ceil(centre + half), 0, (height, width)).astype(int)
    return int(top), int(left), int(bottom - top), int(right - left)
