"""The DICOM slide in a folder: told by what its files hold, for they may be called ``.dcm``, ``.DCM`` or nothing."""

from __future__ import annotations

from pathlib import Path

import openslide

MARK_AT, MARK = 128, b"DICM"
"""Where a file of DICOM says that it is one."""


def dicom_files(folder: Path) -> list[Path]:
    """Return the files right in a folder that are DICOM, or are called so, by name."""
    return [
        item
        for item in sorted(folder.iterdir())
        if item.is_file()
        and not item.name.startswith(".")
        and (item.suffix.lower() == ".dcm" or (not _is_named(item) and _is_dicom(item)))
    ]


def slide_instance(folder: Path) -> Path | None:
    """Return a file of the slide in a folder; annotations, segmentations and others beside it are passed over.

    Where none is a slide it is the first file of DICOM there, so that its reader says what is wrong with it.
    """
    files = dicom_files(folder)
    return next((file for file in files if openslide.OpenSlide.detect_format(file) == "dicom"), None) or next(
        iter(files), None
    )


def _is_named(item: Path) -> bool:
    """Whether a name has an ending that means something; of an identifier, the last part is a number."""
    ending = item.suffix[1:]
    return bool(ending) and not ending.isdigit()


def _is_dicom(item: Path) -> bool:
    with item.open("rb") as file:
        return file.read(MARK_AT + len(MARK))[MARK_AT:] == MARK
