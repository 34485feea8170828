"""What people said of a slide, kept beside it: the size of its pixels, the tissue mask they corrected.

Slides are never written to. ``slide.svs`` has its notes in ``slide.svs.kdseg.json`` and its tissue in
``slide.svs.kdseg-tissue.png``; where that folder cannot be written to, both are kept in the results folder, by the hash
of the slide. Notes of another file that had the same name are not believed.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from napari_kdseg.errors import OutputError, explain
from napari_kdseg.files import results_folder, write_whole
from napari_kdseg.slides.geometry import Pair
from napari_kdseg.slides.slide import Slide
from napari_kdseg.slides.tissue import TissueMask, tissue_mask
from napari_kdseg.synthetic.address import is_address

NOTES = ".kdseg.json"
TISSUE = ".kdseg-tissue.png"
#: Computed tissue masks that are remembered.
COMPUTED = 4
_computed: dict[tuple[str, Pair | None, bool], TissueMask] = {}
_lock = threading.Lock()


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
    tissue
        Present if a tissue mask was kept.
    """

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    slide: str
    identity: str
    mpp: Pair | None = None
    tissue: TissueNotes | None = None


def read_sidecar(slide: Slide) -> Sidecar:
    """Return the notes on a slide; empty ones if there are none.

    Notes that cannot be read are reported as a Python warning and count as none: the slide opens without.
    """
    return _find(slide) or Sidecar(slide=slide.name, identity=slide.identity())


def write_sidecar(slide: Slide, notes: Sidecar) -> Path:
    """Keep notes on a slide and return where.

    Raises
    ------
    OutputError
        If they can be written neither beside the slide nor in the results folder.
    """
    return _write(slide, NOTES, (notes.model_dump_json(indent=2) + "\n").encode())


def kept_mpp(slide: Slide) -> Pair | None:
    """Return the size of a slide's pixels that a person gave, or ``None``."""
    notes = _find(slide)
    return None if notes is None else notes.mpp


def keep_mpp(slide: Slide, mpp: Pair | None) -> Path:
    """Keep the size of a slide's pixels that a person gave; ``None`` forgets it."""
    return write_sidecar(slide, read_sidecar(slide).model_copy(update={"mpp": mpp}))


def keep_tissue(slide: Slide, tissue: TissueMask | None) -> Path:
    """Keep the tissue mask of a slide, for work to use instead of computing one; ``None`` forgets it.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    notes = None
    if tissue is not None:
        picture = io.BytesIO()
        Image.fromarray(tissue.mask.astype(np.uint8) * 255).convert("1").save(picture, "PNG")
        _write(slide, TISSUE, picture.getvalue())
        notes = TissueNotes(
            threshold=tissue.threshold,
            min_piece_um2=tissue.min_piece_um2,
            min_hole_um2=tissue.min_hole_um2,
        )
    return write_sidecar(slide, read_sidecar(slide).model_copy(update={"tissue": notes}))


def kept_tissue(slide: Slide) -> TissueMask | None:
    """Return the tissue mask that a person kept for this slide, or ``None``."""
    notes = _find(slide)
    picture = next((place for place in _places(slide, TISSUE) if place.is_file()), None)
    if notes is None or notes.tissue is None or picture is None:
        return None
    try:
        with Image.open(picture) as image:
            mask = np.asarray(image.convert("1"))
    except (OSError, Image.DecompressionBombError) as error:
        warnings.warn(f"The tissue mask {picture.name} was ignored. {explain(error)}", stacklevel=2)
        return None
    downsample = (slide.shape[0] / mask.shape[0], slide.shape[1] / mask.shape[1])
    return TissueMask(mask, downsample, edited=True, **notes.tissue.model_dump())


def tissue_of(slide: Slide) -> TissueMask:
    """Return the tissue of a slide: the mask that a person kept, or a computed one, which is remembered."""
    kept = kept_tissue(slide)
    if kept is not None:
        return kept
    key = (slide.identity(), slide.mpp, slide.brightfield)
    tissue = _computed.get(key) or tissue_mask(slide)
    if not slide.bad_tiles:  # who reads them is to find them
        with _lock:
            _computed[key] = tissue
            while len(_computed) > COMPUTED:
                del _computed[next(iter(_computed))]
    return tissue


def _find(slide: Slide) -> Sidecar | None:
    for place in _places(slide, NOTES):
        if not place.is_file():
            continue
        try:
            notes = Sidecar.model_validate_json(place.read_bytes())
        except (OSError, ValidationError) as error:
            warnings.warn(f"The notes in {place.name} were ignored. {explain(error)}", stacklevel=3)
            continue
        if notes.identity == slide.identity():
            return notes
    return None


def _places(slide: Slide, suffix: str) -> Iterator[Path]:
    """Where a note may be: in the results folder, where it is if it could not be written beside the slide, or there."""
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
    path = Path(slide.path)
    return path.with_name(path.name + suffix)


def _write(slide: Slide, suffix: str, content: bytes) -> Path:
    """Write beside the slide, or else into the results folder; only one of the two remains."""
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
