"""Annotation files: which format a file has, where it lies on the slide, which file belongs to a slide."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_kdseg.errors import OutputError, SlideError, explain
from napari_kdseg.files import write_whole
from napari_kdseg.slides.annotations.formats.asap import ROOT as ASAP_ROOT
from napari_kdseg.slides.annotations.formats.asap import format_asap, parse_asap
from napari_kdseg.slides.annotations.formats.bounded import read_bounded
from napari_kdseg.slides.annotations.formats.encoding import declares_another, decoded, without_declaration
from napari_kdseg.slides.annotations.formats.geojson import format_geojson, parse_geojson
from napari_kdseg.slides.annotations.formats.imagescope import ROOT as IMAGESCOPE_ROOT
from napari_kdseg.slides.annotations.formats.imagescope import format_imagescope, parse_imagescope
from napari_kdseg.slides.annotations.formats.xml_elements import elements
from napari_kdseg.slides.annotations.model import AnnotationShape, Outlines, moved
from napari_kdseg.slides.annotations.suffixes import BESIDE_A_SLIDE, GEOJSON, XmlFlavour, is_written
from napari_kdseg.slides.geometry import Pair

if TYPE_CHECKING:
    from napari_kdseg.slides.slide import Slide


def read_annotations(
    path: str | Path, *, slide: Slide | None = None, bounds: bool | None = None, origin: Pair | None = None
) -> Outlines:
    """Read the annotations of a slide.

    Parameters
    ----------
    path
        GeoJSON of QuPath, also compressed with gzip; XML of ASAP or of ImageScope, told apart by what is in it.
    slide
        The slide they lie on, if it may say which part of it was scanned.
    bounds
        Whether the file counts from the corner of the scanned area. By default a GeoJSON does, as QuPath writes it, and
        an XML does not.
    origin
        Instead of both: where the point (0, 0) of the file lies on the slide, (y, x) in level-0 pixels.

    Returns
    -------
    Outlines
        A list in level-0 pixels from the corner of the slide, in the order of the file; its ``notes`` say what was
        decided or left out.

    Raises
    ------
    SlideError
        If the file is missing, damaged, too large, or of another kind.
    """
    file = Path(path).expanduser().absolute()
    content = read_bounded(file)
    notes: list[str] = []
    text = "<" if declares_another(content) else decoded(content, file.name, notes).lstrip("\ufeff \t\r\n")
    geojson = text[:1] in ("{", "[")
    if geojson:
        shapes = parse_geojson(text, file.name, notes)
    elif text[:1] == "<":
        shapes = _parse_xml(content if text == "<" else without_declaration(text), file.name, notes)
    else:
        raise SlideError(
            f"{file.name} holds neither GeoJSON nor XML. Export annotations from QuPath as GeoJSON, or from ASAP or "
            "ImageScope as XML."
        )
    if origin is None:
        origin = _origin(slide, geojson if bounds is None else bounds, file.name, notes)
    found = Outlines(moved(shapes, *origin))
    found.notes = tuple(notes)
    return found


def _origin(slide: Slide | None, bounds: bool, name: str, notes: list[str]) -> Pair:
    """Return where (0, 0) of a file lies; said where it makes a difference."""
    if slide is None or slide.bounds is None:
        return 0.0, 0.0
    y, x = slide.bounds[:2]
    corner = f"of the scanned area ({x:,}, {y:,})" if bounds else "of the slide"
    notes.append(f"{name} is read as counting from the corner {corner}.")
    return bounds_origin(slide) if bounds else (0.0, 0.0)


def _parse_xml(content: bytes, name: str, notes: list[str]) -> list[AnnotationShape]:
    _, root = next(elements(content, name))
    if root.tag == ASAP_ROOT:
        return parse_asap(content, name)
    if root.tag == IMAGESCOPE_ROOT:
        return parse_imagescope(content, name, notes)
    raise SlideError(
        f"{name} is XML, but neither of ASAP ({ASAP_ROOT}) nor of ImageScope ({IMAGESCOPE_ROOT}): it begins with "
        f"{root.tag[:80]!r}."
    )


def write_annotations(
    path: str | Path,
    shapes: Sequence[AnnotationShape],
    *,
    slide: Slide | None = None,
    bounds: bool | None = None,
    origin: Pair | None = None,
    xml: XmlFlavour = "asap",
    mpp: Pair | None = None,
) -> None:
    """Write annotations, whole or not at all, replacing a file of that name.

    Parameters
    ----------
    path
        Its name decides: ``.geojson``, ``.json``, either with ``.gz``, or ``.xml``.
    shapes
        In level-0 pixels from the corner of the slide.
    slide, bounds, origin
        As for :func:`read_annotations`: by default a GeoJSON counts from where QuPath counts.
    xml
        Which program an ``.xml`` is for. ASAP and ImageScope hold less than GeoJSON: see ``docs/annotations.md``.
    mpp
        Micrometres per level-0 pixel (y, x); ImageScope keeps lengths and areas.

    Raises
    ------
    OutputError
        If the name says no format, or it cannot be written there.
    """
    file = Path(path).expanduser().absolute()
    name = file.name.lower()
    if origin is None:
        scanned = name.endswith(GEOJSON) if bounds is None else bounds
        origin = _origin(slide, scanned, file.name, [])
    shapes = moved(shapes, -origin[0], -origin[1])
    if not is_written(file):
        raise OutputError(
            f"The name {file.name!r} says no format. Call it *.geojson or *.geojson.gz (QuPath), or *.xml (ASAP, "
            "ImageScope)."
        )
    if name.endswith(GEOJSON):
        content = format_geojson(shapes)
        content = gzip.compress(content, compresslevel=6, mtime=0) if name.endswith(".gz") else content
    else:
        content = format_asap(shapes) if xml == "asap" else format_imagescope(shapes, mpp)
    try:
        write_whole(file, content)
    except OSError as error:
        raise OutputError(f"The annotations could not be written to {file}. {explain(error)}") from error


def bounds_origin(slide: Slide) -> Pair:
    """Return the corner (y, x) of the scanned area of a slide, in level-0 pixels.

    MRXS and some other formats say which part of the slide was scanned. Programs that show only this part count from
    its corner, so their annotations have to be moved. (0, 0) where the file says nothing.
    """
    return (0.0, 0.0) if slide.bounds is None else (float(slide.bounds[0]), float(slide.bounds[1]))


def find_annotation(slide: Slide) -> Path | None:
    """Return the annotation file that lies beside a slide and has its name: ``a.svs`` and ``a.geojson``.

    GeoJSON goes before XML; ``None`` if there is none.
    """
    if slide.is_chosen_series:  # it lies on the slide, not on another picture of the file
        return None
    file = slide.file
    for suffix in BESIDE_A_SLIDE:
        for stem in (file.name, file.stem, file.name.partition(".")[0]):
            found = file.with_name(stem + suffix)
            if found.is_file():
                return found
    return None
