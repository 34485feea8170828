"""The tissue mask that counts for a slide: the one that a person corrected and kept, else a computed one."""

from __future__ import annotations

import io
import threading
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from napari_kdseg.errors import explain
from napari_kdseg.slides.geometry import Pair
from napari_kdseg.slides.sidecar import (
    TissueNotes,
    find_beside,
    find_notes,
    read_sidecar,
    write_beside,
    write_sidecar,
)
from napari_kdseg.slides.slide import Slide
from napari_kdseg.slides.tissue.mask import TissueMask, tissue_mask

TISSUE = ".kdseg-tissue.png"
#: Computed tissue masks that are remembered.
COMPUTED = 4
_computed: dict[tuple[str, Pair | None, bool], TissueMask] = {}
_lock = threading.Lock()


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
        write_beside(slide, TISSUE, picture.getvalue())
        notes = TissueNotes(
            threshold=tissue.threshold,
            min_piece_um2=tissue.min_piece_um2,
            min_hole_um2=tissue.min_hole_um2,
        )
    return write_sidecar(slide, read_sidecar(slide).model_copy(update={"tissue": notes}))


def kept_tissue(slide: Slide) -> TissueMask | None:
    """Return the tissue mask that a person kept for this slide, or ``None``."""
    notes, picture = find_notes(slide), find_beside(slide, TISSUE)
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
