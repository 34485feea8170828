"""Annotations as layers of labels, and back to outlines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import shapely

from napari_kdseg.errors import SlideError
from napari_kdseg.slides import AnnotationShape, open_annotation
from napari_kdseg.slides.annotations.polygonise import outline
from napari_kdseg.widgets._compat import as_multiscale
from napari_kdseg.widgets.layers import colours
from napari_kdseg.widgets.layers.placement import ANNOTATION_KEY, ROLE_KEY, LayerTuple, placement, to_corner
from napari_kdseg.widgets.state.session import AnnotationChoice

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_kdseg.slides import Slide

NOTHING = (0, 255)
"""Labels that show no class: background, and not annotated."""


def annotation_layer(source: str, slide: Slide, bounds: bool | None = None) -> LayerTuple:
    """An annotation of ``slide`` as a napari layer tuple; outlines in black, so that masks stay readable.

    Parameters
    ----------
    source, slide, bounds
        As for :func:`~napari_kdseg.slides.open_annotation`.
    """
    annotation = open_annotation(source, slide, bounds=bounds)
    names = dict(enumerate(annotation.classes))
    options = {
        "name": "annotation",
        "multiscale": True,
        "metadata": {
            ANNOTATION_KEY: AnnotationChoice(source, bounds, annotation.notes),
            ROLE_KEY: "annotation",
        },
        "colormap": colours.label_colormap(dict.fromkeys(range(1, len(names)), colours.BLACK)),
        "opacity": 0.8,
        "features": {"index": list(names), "class": list(names.values())},
        **placement(annotation.downsample, slide.mpp),
    }
    return as_multiscale(annotation.levels), options, "labels"


def labels_to_shapes(
    layer: Labels, slide: Slide, *, classes: Sequence[str] | None = None
) -> list[AnnotationShape]:
    """Outline what was painted in a labels layer, along the edges of its pixels. Slow on large layers.

    Parameters
    ----------
    layer
        A napari labels layer on the slide: of any position, size and resolution, but not turned. 0 and 255 are nothing.
    slide
        The slide it lies on.
    classes
        Names by label; by default those in the column ``class`` of its table, else "class 1" and so on.

    Returns
    -------
    list of AnnotationShape
        In level-0 pixels from the corner of the slide, with the colours of the layer.
    """
    data = layer.data[0] if layer.multiscale else layer.data
    names = dict(enumerate(classes)) if classes is not None else _label_names(layer)
    matrix, offset = to_corner(layer, slide.mpp)
    if not np.array_equal(matrix, np.diag(np.diag(matrix))) or (np.diag(matrix) <= 0).any():
        raise SlideError(
            "This labels layer is turned, sheared or mirrored against the slide: lay it straight first."
        )
    downsample = (float(matrix[0, 0]), float(matrix[1, 1]))

    def read(y: int, x: int, height: int, width: int) -> np.ndarray:
        return np.ascontiguousarray(data[..., y : y + height, x : x + width]).astype(np.int32)

    height, width = data.shape[-2:]
    # the layer's pixel 0 has its centre at `offset`, so its corner lies half of its pixels before
    dy, dx = offset - np.array(downsample) / 2
    shapes = []
    found = outline(read, (height, width), downsample, skip=NOTHING)
    for value in sorted(found.values.difference(NOTHING)):
        colour = tuple(round(float(channel) * 255) for channel in layer.get_color(value)[:3])
        for polygon in found.polygons(value):
            placed = shapely.transform(polygon, lambda xy: xy + (dx, dy))
            shapes.append(AnnotationShape(placed, names.get(value) or f"class {value}", colour))  # type: ignore[arg-type]
    return shapes


def _label_names(layer: Labels) -> dict[int, str]:
    """Names by label from the table of a labels layer, if it has one."""
    table = layer.features
    if "class" not in table:
        return {}
    labels = table.get("index", table.index)
    return {
        int(label): name for label, name in zip(labels, table["class"], strict=True) if isinstance(name, str)
    }
