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
from napari_kdseg.slides.cache import TileCache
from napari_kdseg.slides.colour import in_srgb, with_colours
from napari_kdseg.slides.describe import describe, describe_in_full
from napari_kdseg.slides.folder import slides_in
from napari_kdseg.slides.geometry import layer_transform
from napari_kdseg.slides.level_array import LevelArray
from napari_kdseg.slides.opening import open_slide
from napari_kdseg.slides.readers.backend import Level
from napari_kdseg.slides.sidecar import tissue_of
from napari_kdseg.slides.slide import Slide
from napari_kdseg.slides.stain_view import stain_view
from napari_kdseg.slides.tissue import TissueMask, tissue_mask

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
