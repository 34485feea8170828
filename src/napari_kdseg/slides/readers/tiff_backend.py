"""TIFF slides read directly: tiled or striped, pyramids in pages or in SubIFDs, OME-TIFF, any number of channels.

Only the public page interface of tifffile is used: offsets, byte counts and ``TiffPage.decode`` (see ``tiff_page``).
"""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_kdseg.slides.readers.backend import Level, Metadata, make_level, plane_in_words
from napari_kdseg.slides.readers.refusals import DamagedError, NotSupportedError, refusal
from napari_kdseg.slides.readers.tiff.check import quiet_tifffile
from napari_kdseg.slides.readers.tiff.file_bytes import FileBytes
from napari_kdseg.slides.readers.tiff.metadata import (
    ome_channels,
    ome_mpp,
    ome_pixels,
    properties,
    resolution_mpp,
)
from napari_kdseg.slides.readers.tiff.one_piece import open_page

MAX_CHANNELS = 64


class TiffBackend:
    """Read the segments of the pages of the first series.

    Of an axis other than y, x, channels or samples (time, focus) the first position is taken.

    Raises
    ------
    SlideError
        If the file is not an image that can be shown.
    """

    def __init__(self, path: Path):
        self._asking = threading.Lock()  # tifffile's own file has one position
        try:
            with quiet_tifffile():
                self._tif = tifffile.TiffFile(path)
        except Exception as error:  # tifffile raises errors of many types on malformed headers
            raise refusal(path, error) from error
        self._file = FileBytes(path)
        try:
            with quiet_tifffile():
                series = self._tif.series[0]
                levels = level_pages(self._tif)
                self._keys = [pages[0].keyframe for pages in levels]
                self._pages = [[open_page(page, self._file) for page in pages] for pages in levels]
                self.metadata = self._describe(series)
        except Exception as error:
            self.close()
            raise refusal(path, error) from error

    def read_tile(self, level: int, row: int, column: int) -> np.ndarray:
        """Decode one tile, or as many strips as make one block, of all channels."""
        planes = [page.read(row, column) for page in self._pages[level]]
        pixels = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)
        return plain_pixels(pixels, self._keys[level])

    def read_associated(self, name: str) -> np.ndarray:
        """Read another series of the file."""
        series = next(series for series in self._tif.series[1:] if series.name.lower() == name)
        with self._asking:
            pixels = plain_pixels(np.atleast_3d(series.asarray()), series.keyframe)
        return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels

    def close(self) -> None:
        """Close the file."""
        self._tif.close()
        self._file.close()

    def _describe(self, series: tifffile.TiffPageSeries) -> Metadata:
        key = series.keyframe
        samples = sum(page.samples for page in self._pages[0])
        rgb = key.photometric in (2, 3, 6, 8) and len(self._pages[0]) == 1
        channels = 3 if rgb else samples
        if not 1 <= channels <= MAX_CHANNELS:
            raise NotSupportedError(f"it has {channels} channels, and at most {MAX_CHANNELS} are shown")
        ome = ome_pixels(self._tif)
        names = ("red", "green", "blue") if rgb else tuple(ome_channels(ome, channels))
        return Metadata(
            reader="tifffile",
            reason="It is a plain TIFF: its tiles are decoded directly.",
            compression=self._pages[0][0].compression,
            levels=self._levels(),
            channels=channels,
            dtype=np.dtype(np.uint8) if key.dtype == np.bool_ else np.dtype(key.dtype),
            channel_names=names,
            mpp=ome_mpp(ome) if ome is not None else resolution_mpp(key),
            brightfield=None if rgb else False,
            icc=key.iccprofile,
            properties=properties(key),
            associated=tuple(
                series.name.lower() for series in self._tif.series[1:] if self._tif.is_svs and series.name
            ),
            plane=plane_in_words(_further_axes(series)),
        )

    def _levels(self) -> tuple[Level, ...]:
        first = [pages[0] for pages in self._pages]
        return tuple(make_level(page.shape, first[0].shape, page.tile) for page in first)


def level_pages(tif: tifffile.TiffFile) -> list[list[Any]]:
    """Return the pages of every level, from fine to coarse.

    tifffile leaves out reduced pages that are no whole part of the first; here all that show the same picture count.
    """
    levels = [channel_pages(level) for level in tif.series[0].levels]
    first = levels[0][0].keyframe
    if tif.is_ome or len(levels[0]) > 1 or not first.is_tiled:
        return levels
    pages: list[Any] = [tif.pages[index] for index in range(len(tif.pages))]
    reduced = [[page] for page in pages if page.is_reduced and page.is_tiled and _is_smaller(page, first)]
    if len(reduced) + 1 <= len(levels):
        return levels
    return [levels[0], *sorted(reduced, key=lambda level: -level[0].imagewidth)]


def _is_smaller(page: tifffile.TiffPage, first: tifffile.TiffPage) -> bool:
    """Tell whether a page shows the picture of the first at a lower resolution."""
    same = all(
        getattr(page, name) == getattr(first, name) for name in ("dtype", "samplesperpixel", "photometric")
    )
    factors = (first.imagelength / page.imagelength, first.imagewidth / page.imagewidth)
    slack = 1 + 2 / min(page.imagelength, page.imagewidth)  # sizes are rounded
    return same and min(factors) > 1 and max(factors) / min(factors) < slack


def channel_pages(level: tifffile.TiffPageSeries) -> list[Any]:
    """Return the pages that hold the channels of a level, all other axes being at their first position."""
    leading = level.ndim - level.keyframe.ndim
    axes, shape = level.axes[:leading], level.shape[:leading]
    order = np.arange(math.prod(shape)).reshape(shape)
    chosen = order[tuple(slice(None) if axis == "C" else 0 for axis in axes)]
    pages = [level.pages[int(index)] for index in np.ravel(chosen)]
    if not pages or any(page is None for page in pages):
        raise DamagedError("a channel is missing")
    return pages


def _further_axes(level: tifffile.TiffPageSeries) -> dict[str, int]:
    """Return the axes, and their sizes, of which the first position is taken."""
    leading = level.ndim - level.keyframe.ndim
    return {
        axis: size
        for axis, size in zip(level.axes[:leading], level.shape[:leading], strict=True)
        if axis != "C"
    }


def plain_pixels(pixels: np.ndarray, key: tifffile.TiffPage) -> np.ndarray:
    """Undo what only TIFF has: bits as pixels, white as zero, palettes, an alpha channel."""
    if key.photometric == 3 and key.colormap is not None:
        palette = key.colormap if key.colormap.max() < 256 else key.colormap >> 8
        return np.ascontiguousarray(np.moveaxis(palette.astype(np.uint8)[:, pixels[..., 0]], 0, -1))
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    if key.photometric == 0 and pixels.dtype == np.uint8:
        pixels = 255 - pixels
    if key.photometric == 2 and pixels.shape[2] == 4 and pixels.dtype == np.uint8:
        alpha = pixels[..., 3:].astype(np.uint16)
        return ((pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return pixels[..., :3] if key.photometric in (2, 6, 8) else pixels
