"""DICOM segmentations of a slide, read through highdicom (``napari-kdseg[dicom]``) where they are looked at."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from napari_kdseg.errors import ConfigurationError, SlideError
from napari_kdseg.slides import Annotation, Slide
from napari_kdseg.slides.annotations.mask import check_fit, pixel_of
from napari_kdseg.slides.readers.backend import make_level


def is_dicom(path: Path) -> bool:
    """Tell whether a file is DICOM."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def open_dicom_seg(path: Path, slide: Slide) -> Annotation:
    """Open a tiled DICOM segmentation over the whole slide.

    Its segments are the classes, and what belongs to none is background. Where several overlap, the one with the
    highest number is seen.

    Raises
    ------
    ConfigurationError
        If highdicom is not installed.
    SlideError
        If it is no segmentation of a slide, or does not fit this one.
    """
    try:
        import highdicom
    except ImportError as error:
        raise ConfigurationError(
            "DICOM segmentations need the package highdicom. Install it with: pip install 'napari-kdseg[dicom]'."
        ) from error
    thread = ThreadPoolExecutor(
        1, thread_name_prefix="kdseg-dicom"
    )  # highdicom reads in the thread that opened it
    try:
        segmentation = thread.submit(highdicom.seg.segread, path).result()
        shape = (int(segmentation.TotalPixelMatrixRows), int(segmentation.TotalPixelMatrixColumns))
        numbers = list(segmentation.segment_numbers)
        names = [segmentation.get_segment_description(number).segment_label for number in numbers]
    except (ValueError, AttributeError, RuntimeError, TypeError) as error:
        raise SlideError(
            f"{path.name} is not a segmentation of a slide ({error}). Choose a tiled DICOM SEG, or export the mask as "
            "OME-TIFF or GeoJSON."
        ) from error
    check_fit(shape, slide.shape)
    factor = make_level(shape, slide.shape, shape).downsample

    def sample(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        down, across = pixel_of(rows, factor[0], shape[0]), pixel_of(columns, factor[1], shape[1])
        box = (int(down[0]), int(down[-1]) + 1, int(across[0]), int(across[-1]) + 1)
        block = thread.submit(_read, segmentation, numbers, box).result()
        return block[np.ix_(down - down[0], across - across[0])]

    classes = ("background", *names)
    return Annotation(sample, slide.shape, shape, classes, str(path))


def _read(segmentation: Any, numbers: list[int], box: tuple[int, int, int, int]) -> np.ndarray:
    """Read a box ``(top, bottom, left, right)`` as class indices, uint8."""
    top, bottom, left, right = box
    pixels = segmentation.get_total_pixel_matrix(
        segment_numbers=numbers,
        row_start=top,
        row_end=bottom,
        column_start=left,
        column_end=right,
        as_indices=True,
        rescale_fractional=False,
    )
    classes = np.zeros(pixels.shape[:2], np.uint8)
    for index in range(len(numbers)):
        classes[pixels[..., index] > 0] = index + 1
    return classes
