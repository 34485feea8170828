"""Masks of a slide: arrays, pictures, pyramids in files, and those that are known of a synthetic slide."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.address import Asked
from napari_kdseg.slides.annotations.annotation import Annotation
from napari_kdseg.slides.annotations.class_table import tiff_class_table, zarr_class_colours
from napari_kdseg.slides.annotations.classes import NOT_ANNOTATED, class_colours
from napari_kdseg.slides.annotations.model import Colour
from napari_kdseg.slides.geometry import Pair
from napari_kdseg.slides.pixels.resample import nearest_finer
from napari_kdseg.slides.readers.backend import make_level
from napari_kdseg.slides.readers.choosing import choose_backend, turned
from napari_kdseg.slides.readers.image_backend import open_picture, orientation_of
from napari_kdseg.slides.readers.tiff.check import check_tiff, is_tiff
from napari_kdseg.slides.readers.tiff_backend import TiffBackend
from napari_kdseg.slides.readers.wrapped import upright
from napari_kdseg.slides.readers.zarr_backend import is_zarr, label_names
from napari_kdseg.slides.slide import Slide
from napari_kdseg.synthetic.address import is_address
from napari_kdseg.synthetic.slide import SyntheticSlide

STORED = Asked(kind="channels")
"""Classes are numbers: no palette is applied to them, nothing is scaled."""


def open_mask(source: str | Path | np.ndarray, slide: Slide) -> Annotation:
    """Open a mask of a slide.

    Parameters
    ----------
    source
        An integer or bool array ``[h, w]`` over the whole slide; a PNG or TIFF file of class indices (a file of 0
        and 255 only is read as background and class 1); an OME-Zarr label group; or a ``synthetic:`` address.
    slide
        The slide it lies on. The mask must cover all of it, at any one downsample.

    Returns
    -------
    Annotation

    Raises
    ------
    SlideError
        If the mask cannot be read, is no mask, or does not fit the slide.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, slide, "array")
    if is_address(source):
        return _from_address(str(source), slide)
    path = Path(source).expanduser().absolute()
    if not path.exists():
        raise SlideError(f"There is no mask at {path}. Check whether it was moved or renamed.")
    if path.is_dir() or is_tiff(path):
        return _from_pyramid(path, slide)
    picture = open_picture(path)
    pixels = upright(np.asarray(picture), orientation_of(picture))
    return _from_array(_one_if_binary(_single_plane(pixels, path.name)), slide, str(path))


def _from_address(address: str, slide: Slide) -> Annotation:
    truth = SyntheticSlide.parse(address)
    if truth.shape != slide.shape:
        raise _misfit(truth.shape, slide.shape)
    return Annotation(truth.sample_classes, slide.shape, truth.shape, truth.classes, address)


def _from_array(pixels: np.ndarray, slide: Slide, source: str) -> Annotation:
    """Annotate from an array of classes that lies in memory."""
    if pixels.ndim != 2 or not (pixels.dtype == np.bool_ or np.issubdtype(pixels.dtype, np.integer)):
        raise SlideError(
            f"A mask must be a plane of whole numbers, one class index a pixel, not {pixels.dtype} "
            f"of shape {pixels.shape}."
        )
    shape = (pixels.shape[0], pixels.shape[1])
    check_fit(shape, slide.shape)
    values = np.unique(pixels)
    _check_values(values)
    classes = pixels.astype(np.uint8)
    factor = make_level(shape, slide.shape, shape).downsample

    def sample(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return classes[np.ix_(pixel_of(rows, factor[0], shape[0]), pixel_of(columns, factor[1], shape[1]))]

    return Annotation(sample, slide.shape, shape, _class_names(values, {}), source)


def _from_pyramid(path: Path, slide: Slide) -> Annotation:
    """Annotate from a TIFF or OME-Zarr mask, which is read tile by tile and may be as large as the slide."""
    names: dict[int, str] = {}
    chosen: Mapping[int, Colour | None] = {}
    backend: Any
    if path.is_dir():
        backend = choose_backend(path, STORED)
        if is_zarr(path):
            names, chosen = label_names(path), zarr_class_colours(path)
    else:
        check_tiff(path)
        backend = turned(TiffBackend(path, STORED))
        table = tiff_class_table(path)
        names = {index: name for index, (name, _) in table.items()}
        chosen = {index: colour for index, (_, colour) in table.items()}
    masks = _MaskReader(Slide(backend, path, bad_value=NOT_ANNOTATED))
    check_fit(masks.shape, slide.shape)
    values = masks.values()
    _check_values(values)
    masks.binary = not path.is_dir() and not names and _is_binary(values)
    if masks.binary:
        values = np.array([0, 1])
    masks.scale = make_level(masks.shape, slide.shape, masks.shape).downsample
    classes = _class_names(values, names)
    colours = [chosen.get(i) or default for i, default in enumerate(class_colours(len(classes)))]
    return Annotation(masks.sample, slide.shape, masks.shape, classes, str(path), colours)


class _MaskReader:
    """Sample classes from the levels of a mask file; never from averaged ones, which would invent classes."""

    BAND_PIXELS = 2**25

    def __init__(self, mask: Slide):
        if mask.channels != 1 or not np.issubdtype(mask.dtype, np.integer):
            raise SlideError(
                f"{mask.name} is not a mask: it has {mask.channels} channels of {mask.dtype}. "
                "Save the mask as one channel of whole numbers, one class index a pixel."
            )
        self._mask = mask
        self._levels = mask.metadata.levels
        self.shape = self._levels[0].shape
        self.scale: Pair = (1.0, 1.0)
        self.binary = False

    def values(self) -> np.ndarray:
        """Return all values of the coarsest level."""
        index = len(self._levels) - 1
        (height, width), rows = self._levels[index].shape, self._levels[index].tile[0]
        found = [
            np.unique(self._mask.read(index, y, 0, min(rows, height - y), width))
            for y in range(0, height, rows)
        ]
        return np.unique(np.concatenate(found))

    def sample(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the class at positions of the slide, from the coarsest level that still resolves their spacing."""
        steps = [(line[-1] - line[0]) / max(len(line) - 1, 1) for line in (rows, columns)]
        index = nearest_finer(self._levels, (steps[0] / self.scale[0], steps[1] / self.scale[1]))
        level = self._levels[index]
        down = pixel_of(rows, self.scale[0] * level.downsample[0], level.shape[0])
        across = pixel_of(columns, self.scale[1] * level.downsample[1], level.shape[1])
        left, width = int(across[0]), int(across[-1] - across[0]) + 1
        out = np.empty((len(down), len(across)), np.uint8)
        band = max(1, int(self.BAND_PIXELS / width / max(1, (down[-1] - down[0]) / len(down))))
        for start in range(0, len(down), band):
            lines = down[start : start + band]
            block = self._mask.read(index, int(lines[0]), left, int(lines[-1] - lines[0]) + 1, width)[..., 0]
            out[start : start + band] = np.minimum(
                block[np.ix_(lines - lines[0], across - left)], NOT_ANNOTATED
            )
        if self.binary:
            out[out == NOT_ANNOTATED] = 1
        return out


def pixel_of(positions: np.ndarray, downsample: float, count: int) -> np.ndarray:
    """Return the pixel that each position (level-0 pixels from the corner) falls into."""
    return np.minimum((positions / downsample).astype(np.int64), count - 1)


def check_fit(shape: tuple[int, int], slide_shape: tuple[int, int]) -> None:
    """Accept a mask if one downsample explains both of its sides to within the rounding of a pixel.

    Raises
    ------
    SlideError
        If none does.
    """
    lowest = max(whole / (side + 1) for whole, side in zip(slide_shape, shape, strict=True))
    highest = min(
        whole / (side - 1) if side > 1 else math.inf for whole, side in zip(slide_shape, shape, strict=True)
    )
    if lowest > highest:
        raise _misfit(shape, slide_shape)


def _misfit(shape: tuple[int, int], slide_shape: tuple[int, int]) -> SlideError:
    return SlideError(
        f"This mask is {shape[1]} x {shape[0]} px, which does not fit the slide of {slide_shape[1]} "
        f"x {slide_shape[0]} px: "
        "a mask must cover the whole slide. Export it at the size of the slide, or that size divided by any one number."
    )


def _check_values(values: np.ndarray) -> None:
    if values.size and (values.min() < 0 or values.max() > NOT_ANNOTATED):
        raise SlideError(
            f"This mask holds values from {values.min()} to {values.max()}; class indices go from 0 "
            f"to 254, and 255 means "
            "not annotated. It may number single objects: save one number per class instead."
        )


def _single_plane(pixels: np.ndarray, name: str) -> np.ndarray:
    """Take one channel of a picture whose channels are equal; a coloured one is no mask."""
    if pixels.ndim == 2:
        return pixels
    colours = pixels[..., :3] if pixels.shape[2] > 2 else pixels[..., :1]
    if (colours != colours[..., :1]).any():
        raise SlideError(
            f"{name} is a coloured picture, not a mask. Save the mask as one channel of whole "
            f"numbers, one class index a pixel."
        )
    return colours[..., 0]


def _is_binary(values: np.ndarray) -> bool:
    return bool(len(values)) and values.max() == NOT_ANNOTATED and set(values.tolist()) <= {0, NOT_ANNOTATED}


def _one_if_binary(pixels: np.ndarray) -> np.ndarray:
    """Read a picture of black and white as background and class 1."""
    return (pixels > 0).astype(np.uint8) if _is_binary(np.unique(pixels)) else pixels


def _class_names(values: np.ndarray, names: dict[int, str]) -> tuple[str, ...]:
    """Name the classes up to the highest that occurs or has a name."""
    there = [int(value) for value in values if value != NOT_ANNOTATED] + list(names)
    count = max(2, max(there, default=0) + 1)
    return tuple(
        names.get(value) or ("background" if value == 0 else f"class {value}") for value in range(count)
    )
