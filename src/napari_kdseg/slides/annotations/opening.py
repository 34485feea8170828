"""Whatever holds annotations of a slide becomes an :class:`Annotation`: outlines, masks, arrays, addresses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import shapely

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.annotations.annotation import Annotation
from napari_kdseg.slides.annotations.classes import (
    Classes,
    Overlap,
    class_colours,
    class_indices,
    class_of,
    default_outside,
    painting_order,
)
from napari_kdseg.slides.annotations.files import read_annotations
from napari_kdseg.slides.annotations.mask import open_mask
from napari_kdseg.slides.annotations.model import AnnotationShape
from napari_kdseg.slides.annotations.raster import ShapeRaster
from napari_kdseg.slides.annotations.suffixes import is_annotation_file
from napari_kdseg.slides.geometry import Pair
from napari_kdseg.slides.slide import Slide


def open_annotation(
    source: str | Path | np.ndarray | Sequence[AnnotationShape],
    slide: Slide,
    *,
    classes: Classes | None = None,
    outside: int | None = None,
    overlap: Overlap = "smaller",
    bounds: bool | None = None,
    origin: Pair | None = None,
) -> Annotation:
    """Open an annotation of a slide.

    Parameters
    ----------
    source
        Outlines: a file of QuPath (``.geojson``, ``.json``, also with ``.gz``), ASAP or ImageScope (``.xml``), or
        shapes that were read or drawn. They are rasterised where they are looked at.
        A mask: an integer or bool array ``[h, w]`` over the whole slide; a PNG or TIFF file of class indices (a file
        of 0 and 255 only is read as background and class 1); an OME-Zarr label group; or a ``synthetic:`` address.
    slide
        The slide it lies on. A mask must cover all of it, at any one downsample.
    classes
        For outlines: names in the order of their indices, background first, or indices by name. By default names count
        from 1 as they appear; ``background`` and ``Region*`` are 0, ``Ignore*`` is not annotated.
    outside
        For outlines: what lies outside of all of them, 0 = background or 255 = not annotated. By default 255 if
        something is drawn as background (or lies in a ``Region*``), else 0: with outlines of tumour only, the rest is
        not tumour.
    overlap
        For outlines: ``"smaller"`` ones lie on top, or ``"later"`` ones.
    bounds, origin
        For a file of outlines: from where it counts, as for :func:`read_annotations`.

    Returns
    -------
    Annotation

    Raises
    ------
    SlideError
        If it cannot be read, is no annotation, or does not fit the slide.
    """
    if isinstance(source, np.ndarray):
        return open_mask(source, slide)
    if isinstance(source, str | Path):
        if not is_annotation_file(source):
            return open_mask(source, slide)
        found = read_annotations(source, slide=slide, bounds=bounds, origin=origin)
        annotation = _rasterised(found, slide, str(source), classes, outside, overlap)
        annotation.notes = found.notes
        return annotation
    return _rasterised(source, slide, "shapes", classes, outside, overlap)


def _rasterised(
    shapes: Sequence[AnnotationShape],
    slide: Slide,
    source: str,
    classes: Classes | None,
    outside: int | None,
    overlap: Overlap,
) -> Annotation:
    shapes = [shape for shape in shapes if shape.has_area and not shape.geometry.is_empty]
    _check_on_slide(shapes, slide, source)
    names, indices = class_indices(shapes, classes)
    if outside is None:
        outside = default_outside(indices)
    order = painting_order(shapes, overlap)
    raster = ShapeRaster(
        [shapes[i].geometry for i in order], [indices[class_of(shapes[i])] for i in order], outside
    )
    return Annotation(
        raster.sample, slide.shape, slide.shape, names, source, class_colours(len(names), shapes, indices)
    )


def _check_on_slide(shapes: Sequence[AnnotationShape], slide: Slide, source: str) -> None:
    name = Path(source).name
    if not shapes:
        raise SlideError(
            f"{name} holds no outlined area. Points and lines make no mask: draw areas, or choose another file."
        )
    left, top, right, bottom = shapely.total_bounds([shape.geometry for shape in shapes])
    height, width = slide.shape
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        raise SlideError(
            f"The annotations of {name} lie from {left:.0f}, {top:.0f} to {right:.0f}, {bottom:.0f} px, outside of the "
            f"slide of {width} x {height} px. They belong to another slide, or count from the corner of its scanned "
            "area."
        )
