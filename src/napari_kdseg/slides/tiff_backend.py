"""TIFF slides read directly: tiled or striped, pyramids in pages or in SubIFDs, OME-TIFF, any number of channels.

Only the public page interface of tifffile is used: offsets, byte counts and ``TiffPage.decode``, which is as fast as
calling the codec itself and works from many threads.
"""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from napari_kdseg.slides.backend import BLOCK, Level, Metadata
from napari_kdseg.slides.geometry import Pair
from napari_kdseg.slides.tiff_check import damaged, quiet_tifffile

MAX_CHANNELS = 64
PLAUSIBLE_MPP = (0.05, 20.0)
"""Micrometres per pixel that resolution tags are believed: others are print resolutions, 72 dpi being 352.8 um."""

LENGTHS_UM = {
    "nm": 1e-3,
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "Å": 1e-4,
    "in": 25400.0,
}


class TiffBackend:
    """Read the segments of the pages of the first series.

    Of an axis other than y, x, channels or samples (time, focus) the first position is taken.

    Raises
    ------
    SlideError
        If the file is not an image that can be shown.
    """

    def __init__(self, path: Path):
        self._file = threading.Lock()  # that of tifffile's own file handle does nothing unless it is asked to
        try:
            with quiet_tifffile():
                self._tif = tifffile.TiffFile(path)
        except Exception as error:  # tifffile raises errors of many types on malformed headers
            raise damaged(path, error) from error
        try:
            with quiet_tifffile():
                series = self._tif.series[0]
                self._pages = [_channel_pages(level) for level in series.levels]
                self.metadata = self._describe(series)
        except Exception as error:
            self._tif.close()
            raise damaged(path, error) from error

    def read_tile(self, level: int, row: int, column: int) -> np.ndarray:
        """Decode one tile, or as many strips as make one block, of all channels."""
        there = self.metadata.levels[level]
        height, width = there.tile_shape(row, column)
        top = row * there.tile[0]
        planes = [self._read_page(page, top, column, height, width) for page in self._pages[level]]
        pixels = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)
        return _plain_pixels(pixels, self._pages[level][0].keyframe)

    def _read_page(self, page: Any, top: int, column: int, height: int, width: int) -> np.ndarray:
        """Put together the segments of one page that lie in rows ``top`` and on, in one column of tiles."""
        key = page.keyframe
        out = np.zeros((height, width, key.samplesperpixel), key.dtype)
        step = key.tilelength if key.is_tiled else min(key.rowsperstrip, key.imagelength)
        across = math.ceil(key.imagewidth / key.tilewidth) if key.is_tiled else 1
        down = math.ceil(key.imagelength / step)
        copies = key.samplesperpixel if key.planarconfig == 2 else 1
        for line in range(top // step, math.ceil((top + height) / step)):
            for copy in range(copies):
                piece = self._decode(page, (copy * down * key.imagedepth + line) * across + column)
                part = out[line * step - top :, :, copy : copy + piece.shape[2]]
                rows, columns = min(len(part), len(piece)), min(width, piece.shape[1])
                part[:rows, :columns] = piece[:rows, :columns]
        return out

    def read_associated(self, name: str) -> np.ndarray:
        """Read another series of the file."""
        series = next(series for series in self._tif.series[1:] if series.name.lower() == name)
        with self._file:
            pixels = _plain_pixels(np.atleast_3d(series.asarray()), series.keyframe)
        return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels

    def close(self) -> None:
        """Close the file."""
        self._tif.close()

    def _decode(self, page: Any, index: int) -> np.ndarray:
        """Decode one segment of a page: ``[<= rows, <= columns, samples]``."""
        key = page.keyframe
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        data = None
        if count:
            with self._file:
                self._tif.filehandle.seek(offset)
                data = self._tif.filehandle.read(count)
            if len(data) < count:
                raise EOFError("the file ends within this tile")
        options: dict[str, Any] = {}
        if key.compression in (6, 7, 33007, 34892):
            options = {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader}
        pixels, _, shape = key.decode(data, index, **options)
        if pixels is None:  # a tile that was never written
            return np.full(shape[1:], key.nodata, key.dtype)
        return pixels[0]

    def _describe(self, series: Any) -> Metadata:
        key = series.keyframe
        shapes = [(pages[0].keyframe.imagelength, pages[0].keyframe.imagewidth) for pages in self._pages]
        levels = tuple(
            Level(shape, (shapes[0][0] / shape[0], shapes[0][1] / shape[1]), _tile_of(pages[0].keyframe))
            for shape, pages in zip(shapes, self._pages, strict=True)
        )
        samples = sum(page.keyframe.samplesperpixel for page in self._pages[0])
        rgb = key.photometric in (2, 3, 6, 8) and len(self._pages[0]) == 1
        channels = 3 if rgb else samples
        if not 1 <= channels <= MAX_CHANNELS:
            raise ValueError(f"{channels} channels cannot be shown")
        ome = _ome_pixels(self._tif)
        names = ("red", "green", "blue") if rgb else tuple(_ome_channels(ome, channels))
        return Metadata(
            reader="tifffile",
            levels=levels,
            channels=channels,
            dtype=np.dtype(np.uint8) if key.dtype == np.bool_ else np.dtype(key.dtype),
            channel_names=names,
            mpp=_ome_mpp(ome) if ome is not None else _resolution_mpp(key),
            brightfield=None if rgb else False,
            icc=key.iccprofile,
            properties=_properties(key),
            associated=tuple(
                series.name.lower() for series in self._tif.series[1:] if self._tif.is_svs and series.name
            ),
        )


def _channel_pages(level: Any) -> list[Any]:
    """Return the pages that hold the channels of a level, all other axes being at their first position."""
    leading = level.ndim - level.keyframe.ndim
    axes, shape = level.axes[:leading], level.shape[:leading]
    order = np.arange(math.prod(shape)).reshape(shape)
    chosen = order[tuple(slice(None) if axis == "C" else 0 for axis in axes)]
    pages = [level.pages[int(index)] for index in np.ravel(chosen)]
    if not pages or any(page is None for page in pages):
        raise ValueError("a channel is missing")
    return pages


def _tile_of(key: Any) -> tuple[int, int]:
    if key.is_tiled:
        return key.tilelength, key.tilewidth
    strip = min(key.rowsperstrip, key.imagelength)
    return strip * max(1, BLOCK // strip), key.imagewidth


def _plain_pixels(pixels: np.ndarray, key: Any) -> np.ndarray:
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


def _ome_pixels(tif: tifffile.TiffFile) -> ElementTree.Element | None:
    """Return the Pixels element of the first image of an OME-TIFF, if its XML can be read."""
    if not tif.is_ome or not tif.ome_metadata or "<!ENTITY" in tif.ome_metadata:
        return None
    try:
        return ElementTree.fromstring(tif.ome_metadata.encode()).find(".//{*}Pixels")
    except ElementTree.ParseError:
        return None


def _ome_mpp(pixels: ElementTree.Element) -> Pair | None:
    sizes = []
    for axis in "YX":
        unit = LENGTHS_UM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        try:
            size = float(pixels.get(f"PhysicalSize{axis}", "nan")) * (unit or math.nan)
        except ValueError:
            return None
        sizes.append(size)
    return (sizes[0], sizes[1]) if all(math.isfinite(size) and size > 0 for size in sizes) else None


def _ome_channels(pixels: ElementTree.Element | None, count: int) -> list[str]:
    named = [] if pixels is None else [channel.get("Name") for channel in pixels.findall("{*}Channel")]
    return [(named[i] if i < len(named) else None) or f"channel {i + 1}" for i in range(count)]


def _resolution_mpp(key: Any) -> Pair | None:
    """Believe the resolution tags of a plain TIFF only where they are those of a microscope."""
    if not {"XResolution", "YResolution", "ResolutionUnit"} <= {tag.name for tag in key.tags}:
        return None
    if key.tags["ResolutionUnit"].value not in (2, 3):
        return None
    x, y = (1 / value if value > 0 else math.inf for value in key.get_resolution(unit="micrometer"))
    return (y, x) if all(PLAUSIBLE_MPP[0] <= side <= PLAUSIBLE_MPP[1] for side in (y, x)) else None


def _properties(key: Any) -> dict[str, str]:
    tags = (
        "ImageDescription",
        "Software",
        "Make",
        "Model",
        "DateTime",
        "XResolution",
        "YResolution",
        "ResolutionUnit",
    )
    return {f"tiff.{name}": str(key.tags[name].value) for name in tags if name in key.tags}
