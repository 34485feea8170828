"""The pictures of a TIFF: every series of its pages with the levels that belong to it, in whatever order they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.readers.backend import plane_in_words
from napari_kdseg.slides.readers.pictures import Picture, fine_to_coarse, is_level_of
from napari_kdseg.slides.readers.refusals import DamagedError
from napari_kdseg.slides.readers.tiff.ome import missing_files, ome_root, pixels_of

KINDS_WITH_LEVELS = ("ome", "svs", "scn", "qpi", "ndpi", "bif", "avs", "philips")
"""Series of these kinds have the levels that their format says; of all others they are found by size."""

MASK = 4
"""Bit of NewSubfileType: a transparency mask of another picture."""


@dataclass(frozen=True)
class Plane:
    """One plane of pixels: a page, or a stretch of bytes after it where a stack has a single page.

    Attributes
    ----------
    page
        Of tifffile.
    shift
        Bytes from the pixels of the page to those of this plane.
    """

    page: Any
    shift: int = 0

    @property
    def file(self) -> Path:
        """Where its bytes are."""
        return Path(self.page.parent.filehandle.path)


@dataclass(frozen=True)
class TiffPicture:
    """What is read of one picture.

    Attributes
    ----------
    levels
        Series of tifffile, from fine to coarse.
    channel_axis
        The axis whose every position is a channel with a page of its own.
    pixels
        What OME-XML says of it.
    plane
        Which position of the other axes is read, in words.
    three_pages
        Whether it is the first of three of which nothing says that they are channels.
    """

    levels: tuple[tifffile.TiffPageSeries, ...]
    channel_axis: str
    pixels: ElementTree.Element | None
    plane: str
    three_pages: bool = False

    @property
    def key(self) -> tifffile.TiffPage:
        """The page that describes the finest level."""
        return self.levels[0].keyframe


def pictures_of(tif: tifffile.TiffFile, *, pages_as_channels: bool = False) -> list[Picture[TiffPicture]]:
    """Return the pictures of a file in its order.

    Parameters
    ----------
    tif
        The file.
    pages_as_channels
        Take three pages of one series as red, green and blue, where nothing says what they are.

    Raises
    ------
    ValueError
        If there are none, or a stack is cut off.
    """
    _check_imagej(tif)
    groups = _groups(tif)
    described = pixels_of(ome_root(tif), [group[0] for group in groups])
    pictures = []
    for group, pixels in zip(groups, described, strict=True):
        levels = fine_to_coarse(group, _shape)
        axis = _channel_axis(levels[0], pages_as_channels)
        picture = TiffPicture(
            tuple(levels),
            axis,
            pixels,
            plane_in_words(_further_axes(levels[0], axis)),
            axis == "C" and _channel_axis(levels[0], True) not in "CZT",
        )
        name = levels[0].name if levels[0].kind in KINDS_WITH_LEVELS else ""
        pictures.append(Picture(_shape(levels[0]), picture, name))
    return pictures


def _shape(series: tifffile.TiffPageSeries) -> tuple[int, int]:
    return series.keyframe.imagelength, series.keyframe.imagewidth


def _groups(tif: tifffile.TiffFile) -> list[list[tifffile.TiffPageSeries]]:
    """Return the series that are levels of one picture together, the order of the pictures being that of the file."""
    series = [each for each in tif.series if not _is_mask(each)]
    if not series:
        raise DamagedError("it holds no picture")
    if series[0].kind in KINDS_WITH_LEVELS:
        return [list(each.levels) for each in series]
    single = [level for each in series for level in each.levels]
    groups: list[list[tifffile.TiffPageSeries]] = []
    # the largest first, so that a level finds its picture; a reduced one of equal size is not the picture
    for each in sorted(single, key=lambda one: (-math.prod(_shape(one)), one.keyframe.is_reduced)):
        home = next((group for group in groups if _is_level(each, group[0])), None)
        if home is None:
            groups.append([each])
        else:
            home.append(each)
    return sorted(groups, key=lambda group: min(map(_place, group)))


def _is_mask(series: tifffile.TiffPageSeries) -> bool:
    return bool(series.keyframe.subfiletype & MASK)


def _place(series: tifffile.TiffPageSeries) -> int:
    index = series.keyframe.index
    return int(index[0] if isinstance(index, tuple) else index)


def _is_level(series: tifffile.TiffPageSeries, full: tifffile.TiffPageSeries) -> bool:
    """Tell whether a series shows the picture of another at a lower resolution.

    A thumbnail in strips beside a tiled slide is none: it is often another picture of the glass, or of other colours.
    """
    page, first = series.keyframe, full.keyframe
    same = ("dtype", "samplesperpixel", "photometric", "is_tiled", "planarconfig")
    return (
        len(series.pages) == len(full.pages)
        and all(getattr(page, name) == getattr(first, name) for name in same)
        and (page.is_tiled or page.is_reduced or page.is_subifd)
        and is_level_of(_shape(series), _shape(full))
    )


def _channel_axis(series: tifffile.TiffPageSeries, pages_as_channels: bool) -> str:
    """Return the axis whose every position is a channel with a page of its own."""
    axes, shape = _leading(series)
    many = [axis for axis, size in zip(axes, shape, strict=True) if size > 1]
    single = "C" not in axes and series.keyframe.samplesperpixel == 1
    return many[0] if pages_as_channels and single and math.prod(shape) == 3 else "C"


def _leading(series: tifffile.TiffPageSeries) -> tuple[str, tuple[int, ...]]:
    """Return the axes, and their sizes, that lead from page to page."""
    count = series.ndim - series.keyframe.ndim
    return series.axes[:count], series.shape[:count]


def _further_axes(series: tifffile.TiffPageSeries, channel: str) -> dict[str, int]:
    """Return the axes, and their sizes, of which the first position is taken."""
    return {axis: size for axis, size in zip(*_leading(series), strict=True) if axis != channel}


def planes_of(tif: tifffile.TiffFile, picture: TiffPicture) -> list[tuple[Plane, ...]]:
    """Return the planes of every level, one for each channel that has a page of its own.

    Raises
    ------
    SlideError
        If pages lie in files that are missing.
    ValueError
        If pages are missing from this file.
    """
    return [_planes(tif, level, picture.channel_axis) for level in picture.levels]


def _planes(tif: tifffile.TiffFile, level: tifffile.TiffPageSeries, channel: str) -> tuple[Plane, ...]:
    """Return the planes of the channels of a level, all other axes being at their first position."""
    axes, shape = _leading(level)
    order = np.arange(math.prod(shape)).reshape(shape)
    chosen = [int(i) for i in np.ravel(order[tuple(slice(None) if axis == channel else 0 for axis in axes)])]
    if (
        level.is_truncated
    ):  # ImageJ writes one page for a stack of any length, its planes lie one after the other
        page = level.keyframe
        return tuple(Plane(page, index * page.nbytes) for index in chosen)
    pages = [level.pages[index] for index in chosen]
    if not pages or any(page is None for page in pages):
        missing = missing_files(ome_root(tif), Path(tif.filehandle.dirname))
        if not missing:
            raise DamagedError("a channel is missing")
        raise SlideError(
            f"Some channels of {tif.filename} lie in other files, which are not beside it: {', '.join(missing)}. "
            "Put them into the same folder."
        )
    return tuple(map(Plane, pages))


def _check_imagej(tif: tifffile.TiffFile) -> None:
    """Refuse a stack of ImageJ that ends before its last plane, of which tifffile gives the first plane only."""
    said = tif.imagej_metadata or {}
    if tif.is_imagej and tif.series[0].kind not in ("imagej", "shaped", "ome"):
        raise DamagedError(f"it ends before the last of its {said.get('images', 1)} planes")
