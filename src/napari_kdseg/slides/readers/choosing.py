"""Which reader takes a file: decided by what it holds, not by its name."""

from __future__ import annotations

from pathlib import Path

import openslide

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.address import Asked
from napari_kdseg.slides.readers.backend import Backend, sampled
from napari_kdseg.slides.readers.dicom_folder import slide_instance
from napari_kdseg.slides.readers.image_backend import read_picture
from napari_kdseg.slides.readers.meaning.deciding import decide
from napari_kdseg.slides.readers.meaning.stored import Stored
from napari_kdseg.slides.readers.openslide_backend import OpenSlideBackend
from napari_kdseg.slides.readers.scanner_tiff import VENDORS, NotDirectError, ScannerTiffBackend
from napari_kdseg.slides.readers.tiff.check import check_tiff, is_tiff
from napari_kdseg.slides.readers.tiff_backend import TiffBackend
from napari_kdseg.slides.readers.wrapped import ORIENTATIONS, ReadAsBackend, UprightBackend
from napari_kdseg.slides.readers.zarr_backend import ZarrBackend, is_zarr


def choose_backend(path: Path, asked: Asked | None = None) -> Backend:
    """Return the reader that fits the content of ``path``, for what is asked of it."""
    asked = asked or Asked()
    backend = _backend(path, asked)
    if not backend.metadata.pictures and asked.series not in (None, 1):
        backend.close()
        raise SlideError(
            f"There is no series {asked.series} in {path.name}: there is only one, counted from 1."
        )
    return backend


def _backend(path: Path, asked: Asked) -> Backend:
    try:
        if path.is_dir():
            return _folder_backend(path, asked)
        if not path.exists():
            raise SlideError(f"There is no slide at {path}. Check whether it was moved or renamed.")
        if is_tiff(path):
            return _tiff_backend(path, asked)
        if openslide.OpenSlide.detect_format(path) is not None:
            return _read_as(OpenSlideBackend(path), asked)
    except PermissionError as error:
        raise SlideError(
            f"{path} may not be read by you. Ask its owner for permission, or copy it."
        ) from error
    return read_picture(path, asked)


def _folder_backend(path: Path, asked: Asked) -> Backend:
    if is_zarr(path):
        return ZarrBackend(path, asked)
    instance = slide_instance(path)
    if instance is not None:
        return _read_as(OpenSlideBackend(instance), asked)
    raise SlideError(
        f"The folder {path.name} holds no slide. Choose a slide file, an OME-Zarr folder, or a "
        f"folder of DICOM files."
    )


def _tiff_backend(path: Path, asked: Asked) -> Backend:
    """Plain TIFF is read directly; a scanner's is described by OpenSlide, and read directly where that can be."""
    check_tiff(path)
    vendor = openslide.OpenSlide.detect_format(path)
    if vendor in (None, "generic-tiff"):
        return turned(TiffBackend(path, asked))
    described = OpenSlideBackend(path)
    if vendor not in VENDORS:
        return _read_as(described, asked)
    try:
        return _read_as(ScannerTiffBackend(path, described), asked)
    except NotDirectError as reason:
        described.metadata.reason = f"OpenSlide reads its tiles: {reason}."
        return _read_as(described, asked)


def _read_as(backend: Backend, asked: Asked) -> Backend:
    """Return a slide that comes in RGB as a person asked for it."""
    if asked.kind is None and asked.white is None:
        return backend
    stored = Stored(3, backend.metadata.dtype, "rgb")
    return ReadAsBackend(backend, decide(stored, asked, sampled(backend.read_tile, backend.metadata.levels)))


def turned(backend: TiffBackend) -> Backend:
    """Return a slide upright, as its tag Orientation says."""
    turn = backend.orientation
    return UprightBackend(backend, turn) if turn in ORIENTATIONS else backend
