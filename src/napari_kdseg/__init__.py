"""Knowledge distillation of segmentation networks for pathology, seen on the slide.

Importing the package loads neither torch nor Qt: every room is imported where it is used.
"""

from importlib.metadata import version

__version__ = version("napari-kdseg")
