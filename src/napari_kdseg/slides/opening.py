"""A path or an address becomes a :class:`~napari_kdseg.slides.slide.Slide`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_kdseg.slides.address import Asked, join_address, split_address
from napari_kdseg.slides.geometry import Pair
from napari_kdseg.slides.pixels.cache import TileCache
from napari_kdseg.slides.readers.backend import Metadata
from napari_kdseg.slides.readers.choosing import choose_backend
from napari_kdseg.slides.readers.synthetic_backend import SyntheticBackend
from napari_kdseg.slides.sidecar import believed_mpp, find_notes
from napari_kdseg.slides.slide import Slide
from napari_kdseg.synthetic.address import is_address


def open_slide(
    path: str | Path,
    *,
    mpp: float | Pair | None = None,
    cache: TileCache | None = None,
    threads: int | None = None,
) -> Slide:
    """Open a slide.

    Parameters
    ----------
    path
        A file; a folder (OME-Zarr, or DICOM instances of one slide), both with what is asked of them, such as
        ``?series=2`` (:mod:`~napari_kdseg.slides.address`); or ``"synthetic:100000x80000?seed=0&mpp=0.25"``,
        an H&E-like slide of any size (width x height) that is computed where it is looked at.
    mpp
        Micrometres per level-0 pixel, one number or (y, x), where the file does not know or is wrong. By default what a
        person said of this slide before (:mod:`~napari_kdseg.slides.sidecar`), else what the file says.
    cache
        For decoded tiles; by default the one all slides share.
    threads
        That decode the tiles of one region; by default one less than there are processors.

    Returns
    -------
    Slide

    Raises
    ------
    SlideError
        If there is no such file, it is no slide, or it is damaged.
    """
    if is_address(path):
        return Slide(
            SyntheticBackend.parse(str(path)),
            path,
            name=str(path).partition("?")[0],
            mpp=mpp,
            cache=cache,
            threads=threads,
            reopen=open_slide,
        )
    file, asked = split_address(path)
    options = {"mpp": mpp, "cache": cache, "threads": threads, "reopen": open_slide}
    slide = _opened(file, asked, path=join_address(file, asked), **options)
    try:
        notes = find_notes(slide)
        if notes is not None:
            said = asked.kind is not None or asked.white is not None
            if not said and (notes.read_as is not None or notes.white is not None):
                slide.close()
                kept = Asked(asked.series, notes.read_as, notes.white)
                slide = _opened(file, kept, path=slide.path, **options)
            if mpp is None and (scale := believed_mpp(notes)) is not None:
                slide.mpp = scale
    except BaseException:
        slide.close()
        raise
    return slide


def _opened(file: Path, asked: Asked, **options: Any) -> Slide:
    backend = choose_backend(file, asked)
    try:
        slide = Slide(backend, name=_name(file, backend.metadata), asked=asked, **options)
        slide.check_readable()
    except BaseException:
        backend.close()
        raise
    return slide


def _name(file: Path, metadata: Metadata) -> str:
    """Return the name of the file, with the series if a person chose one."""
    if metadata.series == metadata.default_series:
        return file.name
    return f"series {metadata.series + 1} of {file.name}"
