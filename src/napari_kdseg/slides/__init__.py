"""A file becomes a :class:`Slide`: levels read lazily, in micrometres; annotations lie on it."""

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.annotations import (
    ANNOTATION_SUFFIXES,
    Annotation,
    AnnotationShape,
    annotation_to_shapes,
    bounds_origin,
    find_annotation,
    open_annotation,
    read_annotations,
    write_annotations,
)
from napari_kdseg.slides.facts import describe, describe_in_full
from napari_kdseg.slides.folder import slides_in
from napari_kdseg.slides.geometry import layer_transform
from napari_kdseg.slides.opening import open_slide
from napari_kdseg.slides.pixels.cache import TileCache
from napari_kdseg.slides.pixels.level_array import LevelArray
from napari_kdseg.slides.readers.backend import Level
from napari_kdseg.slides.slide import Slide
from napari_kdseg.slides.tissue.kept import tissue_of
from napari_kdseg.slides.tissue.mask import TissueMask, tissue_mask
from napari_kdseg.slides.views.colour import in_srgb, with_colours
from napari_kdseg.slides.views.stain import stain_view

__all__ = [
    "ANNOTATION_SUFFIXES",
    "Annotation",
    "AnnotationShape",
    "Level",
    "LevelArray",
    "Slide",
    "SlideError",
    "TileCache",
    "TissueMask",
    "annotation_to_shapes",
    "bounds_origin",
    "describe",
    "describe_in_full",
    "find_annotation",
    "in_srgb",
    "layer_transform",
    "open_annotation",
    "open_slide",
    "read_annotations",
    "slides_in",
    "stain_view",
    "tissue_mask",
    "tissue_of",
    "with_colours",
    "write_annotations",
]
