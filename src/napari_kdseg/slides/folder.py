"""The slides of a folder."""

from __future__ import annotations

import json
from pathlib import Path

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.address import split_address
from napari_kdseg.slides.formats import suffixes
from napari_kdseg.slides.readers.dicom_folder import dicom_files
from napari_kdseg.slides.readers.zarr_backend import is_zarr
from napari_kdseg.synthetic.address import is_address


def slides_in(path: str) -> list[str]:
    """Return the slides that a person means by a path.

    Parameters
    ----------
    path
        A slide (a file, an OME-Zarr folder, a folder of the DICOM files of one slide, ``synthetic:...``), or a folder
        of slides.

    Returns
    -------
    list of str
        The slide itself, or those right in the folder in order of their names.

    Raises
    ------
    SlideError
        If a folder holds no slide.
    """
    if is_address(path):
        return [path]
    folder = split_address(path)[0]
    if not folder.is_dir() or _is_slide(folder):
        return [path]
    found = [
        str(item) for item in sorted(folder.iterdir()) if not item.name.startswith(".") and _looks_so(item)
    ]
    if not found:
        raise SlideError(f"The folder {folder.name} holds no slide. Choose a slide, or a folder of slides.")
    return found


def _looks_so(path: Path) -> bool:
    if path.is_dir():
        return _is_slide(path) and not _is_mask_store(path)
    return path.suffix.lower() in suffixes("scanner", "tiff")


def _is_slide(folder: Path) -> bool:
    return is_zarr(folder) or bool(dicom_files(folder))


def _is_mask_store(folder: Path) -> bool:
    """Tell whether a zarr folder holds masks of this program; they may lie beside their slides."""
    try:
        attributes = json.loads((folder / "zarr.json").read_bytes())["attributes"]
        return "slide" in attributes["kdseg"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
