"""What people drew on a slide: read and written in the formats of other programs, as polygons and as masks."""

from napari_kdseg.slides.annotations.annotation import Annotation
from napari_kdseg.slides.annotations.classes import NOT_ANNOTATED, Overlap
from napari_kdseg.slides.annotations.files import (
    ANNOTATION_SUFFIXES,
    bounds_origin,
    find_annotation,
    read_annotations,
    write_annotations,
)
from napari_kdseg.slides.annotations.model import AnnotationShape
from napari_kdseg.slides.annotations.opening import open_annotation
from napari_kdseg.slides.annotations.polygonise import annotation_to_shapes

__all__ = [
    "ANNOTATION_SUFFIXES",
    "NOT_ANNOTATED",
    "Annotation",
    "AnnotationShape",
    "Overlap",
    "annotation_to_shapes",
    "bounds_origin",
    "find_annotation",
    "open_annotation",
    "read_annotations",
    "write_annotations",
]
