"""Slides that OpenSlide reads: Aperio, Hamamatsu, Leica, MIRAX, Philips, Ventana, Zeiss, DICOM and more.

Plain tiled TIFF is not read here: levels whose size is no whole part of level 0 come out slightly shifted.
OpenSlide's own work per call is large beside decoding, so tiles are blocks of near 512 px, one ``read_region`` each.
"""

from __future__ import annotations

import math
import threading
from functools import cache
from pathlib import Path

import numpy as np
import openslide
from PIL import Image, ImageCms

from napari_kdseg.slides.geometry import Pair
from napari_kdseg.slides.readers.backend import Level, Metadata, block_of
from napari_kdseg.slides.readers.refusals import refusal

NATIVE_CACHE_BYTES = 16 * 2**20


@cache
def _native_cache() -> openslide.OpenSlideCache:
    """One small cache for all handles: what is decoded is kept by ours, it only serves tiles cut by two blocks."""
    return openslide.OpenSlideCache(NATIVE_CACHE_BYTES)


class OpenSlideBackend:
    """Read tiles through one shared OpenSlide handle, which works from many threads.

    An error latches: after one damaged tile every call on that handle fails. So whatever fails is tried again on a
    fresh handle of its own, and the shared one is replaced.

    Raises
    ------
    SlideError
        If OpenSlide cannot open the file.
    """

    def __init__(self, path: Path):
        self._path = path
        self._renewing = threading.Lock()
        try:
            self._handle = self._open()
        except (openslide.OpenSlideError, OSError) as error:
            raise refusal(path, error) from error
        self.metadata = _describe(self._handle)
        self.vendor = self.metadata.properties.get(openslide.PROPERTY_NAME_VENDOR, "")
        self._background = np.array(self.metadata.background or (255, 255, 255), np.uint16)

    def read_tile(self, level: int, row: int, column: int) -> np.ndarray:
        """Read one block, composited on the background colour."""
        there = self.metadata.levels[level]
        height, width = there.tile_shape(row, column)
        return self.read_region(level, row * there.tile[0], column * there.tile[1], height, width)

    def read_region(self, level: int, y: int, x: int, height: int, width: int) -> np.ndarray:
        """Read a region, in pixels of its level, composited on the background colour.

        Raises
        ------
        openslide.OpenSlideError
            If a tile of it is damaged.
        """
        handle = self._handle
        try:
            return self._read(handle, level, y, x, height, width)
        except openslide.OpenSlideError:
            return self._read_afresh(handle, level, y, x, height, width)

    def read_associated(self, name: str) -> np.ndarray:
        """Read the label, macro or thumbnail."""
        return self._composite(self._handle.associated_images[name])

    def close(self) -> None:
        """Close the handle."""
        self._handle.close()

    def _open(self) -> openslide.OpenSlide:
        handle = openslide.OpenSlide(self._path)
        handle.set_cache(_native_cache())
        return handle

    def _read(
        self, handle: openslide.OpenSlide, level: int, y: int, x: int, height: int, width: int
    ) -> np.ndarray:
        # locations are level-0 pixels whatever the level, and the downsample may be 4.0002
        factor = handle.level_downsamples[level]
        location = (round(x * factor), round(y * factor))
        return self._composite(handle.read_region(location, level, (width, height)))

    def _read_afresh(self, failed: openslide.OpenSlide, level: int, *box: int) -> np.ndarray:
        """Read on a handle that no other tile can have spoilt, and leave a good one behind."""
        with self._renewing:
            trial = self._open()
            try:
                return self._read(trial, level, *box)
            except openslide.OpenSlideError:
                trial = self._open()
                raise
            finally:
                if self._handle is failed:
                    self._handle = trial  # the old one is closed when the last thread lets go of it

    def _composite(self, image: Image.Image) -> np.ndarray:
        rgba = np.asarray(image.convert("RGBA"))
        alpha = rgba[..., 3:]
        if alpha.min(initial=255) == 255:
            return np.ascontiguousarray(rgba[..., :3])
        weight = alpha.astype(np.uint16)
        return ((rgba[..., :3] * weight + self._background * (255 - weight) + 127) // 255).astype(np.uint8)


def _describe(handle: openslide.OpenSlide) -> Metadata:
    properties = dict(handle.properties)
    colour = properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR)
    fingerprint = properties.get(openslide.PROPERTY_NAME_QUICKHASH1)
    return Metadata(
        reader="openslide",
        reason=f"OpenSlide reads this format ({properties.get(openslide.PROPERTY_NAME_VENDOR, 'unknown')}).",
        levels=_levels(handle, properties),
        mpp=_mpp(properties),
        objective_power=_number(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)),
        background=tuple(bytes.fromhex(colour)) if colour else None,
        icc=_icc(handle),
        properties=properties,
        associated=tuple(handle.associated_images),
        bounds=_bounds(properties, handle.dimensions),
        fingerprint=f"quickhash:{fingerprint}" if fingerprint else None,
    )


def _levels(handle: openslide.OpenSlide, properties: dict[str, str]) -> tuple[Level, ...]:
    width0, height0 = handle.dimensions
    levels = []
    for index, (width, height) in enumerate(handle.level_dimensions):
        native = tuple(
            _number(properties.get(f"openslide.level[{index}].tile-{side}")) for side in ("height", "width")
        )
        # NDPI has tiles of 8 x 3968: what is far from square or from 512 is cut into blocks of 512 instead
        usable = [int(side) if side and 64 <= side <= 1024 else 512 for side in native]
        levels.append(
            Level((height, width), (height0 / height, width0 / width), block_of((usable[0], usable[1])))
        )
    return tuple(levels)


def _mpp(properties: dict[str, str]) -> Pair | None:
    y = _number(properties.get(openslide.PROPERTY_NAME_MPP_Y))
    x = _number(properties.get(openslide.PROPERTY_NAME_MPP_X))
    if y is None or x is None or not (math.isfinite(y) and math.isfinite(x) and min(y, x) > 0):
        return None
    return y, x


def _icc(handle: openslide.OpenSlide) -> bytes | None:
    """Return the ICC profile; a damaged one is none."""
    try:
        profile = handle.color_profile
    except ImageCms.PyCMSError:
        return None
    return profile.tobytes() if profile is not None else None


def _bounds(properties: dict[str, str], size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Return (y, x, height, width) of what was scanned, as far as it lies on the slide."""
    values = [_number(properties.get(f"openslide.bounds-{name}")) for name in ("y", "x", "height", "width")]
    if any(value is None for value in values):
        return None
    y, x, height, width = (max(0, int(value or 0)) for value in values)
    height, width = min(height, size[1] - y), min(width, size[0] - x)
    return (y, x, height, width) if height > 0 and width > 0 else None


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
