"""What people said of a slide, kept beside it: the size of its pixels, the tissue mask they corrected.

Slides are never written to. ``slide.svs`` has its notes in ``slide.svs.kdseg.json`` and its tissue in
``slide.svs.kdseg-tissue.png``; where that folder cannot be written to, both are kept in the results folder, by the hash
of the slide. Notes of another file that had the same name are not believed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from napari_kdseg.errors import OutputError, explain
from napari_kdseg.files import results_folder, write_whole
from napari_kdseg.slides.address import Kind
from napari_kdseg.slides.geometry import Pair
from napari_kdseg.slides.scale import is_plausible
from napari_kdseg.slides.slide import Slide
from napari_kdseg.synthetic.address import is_address

NOTES = ".kdseg.json"


class TissueNotes(BaseModel):
    """How the kept tissue mask was made; the pixels themselves are in the picture beside."""

    model_config = ConfigDict(frozen=True)

    threshold: float
    min_piece_um2: float | None = None
    min_hole_um2: float | None = None


class Sidecar(BaseModel):
    """Notes on one slide.

    Attributes
    ----------
    slide, identity
        Which slide they are about: its name, and the hash of its content.
    mpp
        Micrometres per level-0 pixel (y, x), given by a person.
    read_as, white
        What its numbers mean, and the value that is white, as a person said.
    tissue
        Present if a tissue mask was kept.
    """

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    slide: str
    identity: str
    mpp: Pair | None = None
    read_as: Kind | None = None
    white: float | None = None
    tissue: TissueNotes | None = None


def read_sidecar(slide: Slide) -> Sidecar:
    """Return the notes on a slide; empty ones if there are none.

    Notes that cannot be read are reported as a Python warning and count as none: the slide opens without.
    """
    return find_notes(slide) or Sidecar(slide=slide.name, identity=slide.identity())


def write_sidecar(slide: Slide, notes: Sidecar) -> Path:
    """Keep notes on a slide and return where.

    Raises
    ------
    OutputError
        If they can be written neither beside the slide nor in the results folder.
    """
    return write_beside(slide, NOTES, (notes.model_dump_json(indent=2) + "\n").encode())


def believed_mpp(notes: Sidecar) -> Pair | None:
    """Return the size of pixels that is in the notes on a slide, unless no slide has it."""
    if notes.mpp is not None and not is_plausible(notes.mpp):
        warnings.warn(
            f"The pixel size kept for {notes.slide}, {notes.mpp[1]:g} µm, was ignored.", stacklevel=3
        )
        return None
    return notes.mpp


def keep_mpp(slide: Slide, mpp: Pair | None) -> Path:
    """Keep the size of a slide's pixels that a person gave; ``None`` forgets it."""
    return write_sidecar(slide, read_sidecar(slide).model_copy(update={"mpp": mpp}))


def keep_reading(slide: Slide, kind: Kind | None, white: float | None) -> Path:
    """Keep what a person said that a slide's numbers mean; ``None`` forgets it."""
    return write_sidecar(slide, read_sidecar(slide).model_copy(update={"read_as": kind, "white": white}))


def find_notes(slide: Slide) -> Sidecar | None:
    """Return the notes on a slide, or ``None``; those that cannot be read are reported as :func:`read_sidecar` does."""
    for path in _paths(slide, NOTES):
        if not path.is_file():
            continue
        try:
            notes = Sidecar.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            warnings.warn(f"The notes in {path.name} were ignored. {explain(error)}", stacklevel=3)
            continue
        if notes.identity == slide.identity():
            return notes
    return None


def find_beside(slide: Slide, suffix: str) -> Path | None:
    """Return the file of the slide's name and ``suffix`` that :func:`write_beside` wrote, or ``None``."""
    return next((path for path in _paths(slide, suffix) if path.is_file()), None)


def _paths(slide: Slide, suffix: str) -> Iterator[Path]:
    """Where a file may be: in the results folder, where it is if it could not be written beside the slide, or there."""
    folder = _results_folder()
    if folder.is_dir():  # otherwise there is no need to hash the slide
        yield _kept_away(slide, suffix)
    if not is_address(slide.path):
        yield _beside(slide, suffix)


def _results_folder() -> Path:
    return results_folder() / "slides"


def _kept_away(slide: Slide, suffix: str) -> Path:
    digest = "".join(c for c in slide.identity() if c.isalnum())[-24:]
    return _results_folder() / f"{digest}{suffix}"


def _beside(slide: Slide, suffix: str) -> Path:
    series = f".series-{slide.metadata.series + 1}" if slide.is_chosen_series else ""
    return slide.file.with_name(slide.file.name + series + suffix)


def write_beside(slide: Slide, suffix: str, content: bytes) -> Path:
    """Write a file beside the slide, or else into the results folder; only one of the two remains.

    Raises
    ------
    OutputError
        If it can be written to neither.
    """
    away = _kept_away(slide, suffix)
    if not is_address(slide.path):
        try:
            write_whole(_beside(slide, suffix), content)
        except OSError:  # a folder that belongs to others, as slide archives do: the results folder then
            pass
        else:
            away.unlink(missing_ok=True)
            return _beside(slide, suffix)
    try:
        write_whole(away, content)
    except OSError as error:
        raise OutputError(
            f"What you said of {slide.name} could be kept neither beside it nor in the results folder. {explain(error)}"
        ) from error
    return away
