"""The one table of what the names of annotation files end in, lower case."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from napari_kdseg.slides.formats import patterns

XmlFlavour = Literal["asap", "imagescope"]
"""The program that an ``.xml`` is written for; read are both, and told apart by what is in the file."""

QUPATH = (".geojson", ".geojson.gz")
GEOJSON = (*QUPATH, ".json", ".json.gz")
XML = (".xml", ".annotations")
ANNOTATION_SUFFIXES = (*GEOJSON, *XML)
"""Files of these names hold outlines; whatever else is opened as an annotation is a mask."""

WRITTEN = (*GEOJSON, XML[0])
"""Files of outlines that can be written: ``.annotations`` is HALO's, which is read only."""

BESIDE_A_SLIDE = (*QUPATH, *XML)
"""The annotation of a slide, if it lies there under the name of the slide; a ``.json`` there may be anything."""


def is_annotation_file(path: str | Path) -> bool:
    """Tell by its name whether a file holds outlines."""
    return Path(path).name.lower().endswith(ANNOTATION_SUFFIXES)


def is_written(path: str | Path) -> bool:
    """Tell whether a name says in which format outlines are to be written."""
    return Path(path).name.lower().endswith(WRITTEN)


def outline_patterns() -> tuple[str, ...]:
    """Return the patterns of the names of files of outlines, ``"*.geojson"``, for dialogs."""
    return tuple(f"*{suffix}" for suffix in ANNOTATION_SUFFIXES)


def mask_patterns() -> tuple[str, ...]:
    """Return the patterns of the names of masks that are one file: PNG and TIFF, of which JPEG would change classes."""
    return ("*.png", *patterns("tiff"))
