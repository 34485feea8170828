import napari_kdseg.errors

from .annotations.annotation import Annotation as Annotation
from .annotations.files import bounds_origin as bounds_origin
from .annotations.files import find_annotation as find_annotation
from .annotations.files import read_annotations as read_annotations
from .annotations.files import write_annotations as write_annotations
from .annotations.model import AnnotationShape as AnnotationShape
from .annotations.opening import open_annotation as open_annotation
from .annotations.polygonise import annotation_to_shapes as annotation_to_shapes
from .annotations.suffixes import ANNOTATION_SUFFIXES as ANNOTATION_SUFFIXES
from .facts import describe as describe
from .facts import describe_in_full as describe_in_full
from .folder import slides_in as slides_in
from .geometry import layer_transform as layer_transform
from .opening import open_slide as open_slide
from .pixels.cache import TileCache as TileCache
from .pixels.level_array import LevelArray as LevelArray
from .readers.backend import Level as Level
from .slide import Slide as Slide
from .tissue.kept import tissue_of as tissue_of
from .tissue.mask import TissueMask as TissueMask
from .tissue.mask import tissue_mask as tissue_mask
from .views.colour import in_srgb as in_srgb
from .views.colour import with_colours as with_colours
from .views.stain import stain_view as stain_view

SlideError = napari_kdseg.errors.SlideError
