"""Which reader takes a file: decided by what it holds, not by its name."""

from __future__ import annotations

from pathlib import Path

import openslide

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.readers.backend import Backend
from napari_kdseg.slides.readers.dicom_folder import slide_instance
from napari_kdseg.slides.readers.image_backend import read_picture
from napari_kdseg.slides.readers.openslide_backend import OpenSlideBackend
from napari_kdseg.slides.readers.scanner_tiff import VENDORS, NotDirectError, ScannerTiffBackend
from napari_kdseg.slides.readers.tiff.check import check_tiff, is_tiff
from napari_kdseg.slides.readers.tiff_backend import TiffBackend
from napari_kdseg.slides.readers.zarr_backend import ZarrBackend, is_zarr


def choose_backend(path: Path) -> Backend:
    """Return the reader that fits the content of ``path``."""
    try:
        if path.is_dir():
            return _folder_backend(path)
        if not path.exists():
            raise SlideError(f"There is no slide at {path}. Check whether it was moved or renamed.")
        if is_tiff(path):
            return _tiff_backend(path)
        if openslide.OpenSlide.detect_format(path) is not None:
            return OpenSlideBackend(path)
    except PermissionError as error:
        raise SlideError(
            f"{path} may not be read by you. Ask its owner for permission, or copy it."
        ) from error
    return read_picture(path)


def _folder_backend(path: Path) -> Backend:
    if is_zarr(path):
        return ZarrBackend(path)
    instance = slide_instance(path)
    if instance is not None:
        return OpenSlideBackend(instance)
    raise SlideError(
        f"The folder {path.name} holds no slide. Choose a slide file, an OME-Zarr folder, or a "
        f"folder of DICOM files."
    )


def _tiff_backend(path: Path) -> Backend:
    """Plain TIFF is read directly; a scanner's is described by OpenSlide, and read directly where that can be."""
    check_tiff(path)
    vendor = openslide.OpenSlide.detect_format(path)
    if vendor in (None, "generic-tiff"):
        return TiffBackend(path)
    described = OpenSlideBackend(path)
    if vendor not in VENDORS:
        return described
    try:
        return ScannerTiffBackend(path, described)
    except NotDirectError as reason:
        described.metadata.reason = f"OpenSlide reads its tiles: {reason}."
        return described
