"""A file becomes a :class:`Slide`: levels read lazily, in micrometres; annotations lie on it."""

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.annotation import Annotation, open_annotation
from napari_kdseg.slides.backend import Level
from napari_kdseg.slides.cache import TileCache
from napari_kdseg.slides.describe import describe, describe_in_full
from napari_kdseg.slides.geometry import layer_transform
from napari_kdseg.slides.level_array import LevelArray
from napari_kdseg.slides.opening import open_slide
from napari_kdseg.slides.slide import Slide
from napari_kdseg.slides.tissue import TissueMask, tissue_mask

__all__ = [
    "Annotation",
    "Level",
    "LevelArray",
    "Slide",
    "SlideError",
    "TileCache",
    "TissueMask",
    "describe",
    "describe_in_full",
    "layer_transform",
    "open_annotation",
    "open_slide",
    "tissue_mask",
]
