"""The tiles of one page of a TIFF, decoded directly: one read of the file, one call of the codec, no copy in between.

JPEG goes straight to libjpeg-turbo (``jpeg.py``); all else through ``TiffPage.decode`` of tifffile, which
knows predictors, byte orders and bit depths.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tifffile

from napari_kdseg.slides.readers.backend import BLOCK
from napari_kdseg.slides.readers.meaning.numbers import ycbcr_to_rgb
from napari_kdseg.slides.readers.refusals import DamagedError
from napari_kdseg.slides.readers.tiff.file_bytes import FileBytes
from napari_kdseg.slides.readers.tiff.jpeg import JPEG, JpegTiles, check_jpeg
from napari_kdseg.slides.readers.tiff.tile_check import check_compression, check_tile

JPEG_IN_TIFFPAGE = (6, 7, 33007, 34892)
"""Compressions for which ``TiffPage.decode`` takes tables and headers."""
APERIO_JP2K_YCBCR = 33003


class PageTiles:
    """Decode tiles of a page, or blocks of its strips.

    Parameters
    ----------
    page
        Of tifffile.
    file
        Where its bytes are.
    missing
        Value of the pixels of a tile that was never written; by default that of the page.
    shape
        Pixels (height, width), where the page is padded beyond its picture.
    shift
        Bytes by which all pixels lie behind those of the page, in a stack of planes that has one page.
    """

    def __init__(
        self,
        page: tifffile.TiffPage,
        file: FileBytes,
        missing: int | None = None,
        shape: tuple[int, int] | None = None,
        shift: int = 0,
    ):
        key = page.keyframe
        check_compression(key.compression)
        self._key, self._file = key, file
        self._missing = key.nodata if missing is None else missing
        self.shape = (key.imagelength, key.imagewidth) if shape is None else shape
        self.samples = key.samplesperpixel
        self.tile = _tile_of(key)
        offsets, self._counts = page.dataoffsets, page.databytecounts
        self._offsets = [offset + shift for offset in offsets] if shift else offsets
        self._across = math.ceil(key.imagewidth / key.tilewidth) if key.is_tiled else 1
        self._step = key.tilelength if key.is_tiled else min(key.rowsperstrip, key.imagelength)
        self._options: dict[str, Any] = {}
        if key.compression in JPEG_IN_TIFFPAGE:
            self._options = {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader}
        self._jpeg: JpegTiles | None = None
        if _is_plain_jpeg(key):
            colours = "YCBCR" if key.photometric == 6 else "RGB"
            self._jpeg = JpegTiles(page.jpegtables, colours, self.tile)

    @property
    def compression(self) -> str:
        """Name of the codec, in lower case."""
        return str(getattr(self._key.compression, "name", self._key.compression)).lower()

    @property
    def whole(self) -> bool:
        """Whether every tile was written."""
        return all(self._counts)

    def fullest(self, number: int) -> list[tuple[int, int]]:
        """Return the (row, column) of the tiles with the most bytes: they show most."""
        rows, columns = (math.ceil(side / tile) for side, tile in zip(self.shape, self.tile, strict=True))
        tiles = sorted(
            ((row, column) for row in range(rows) for column in range(columns)),
            key=lambda tile: -self._counts[tile[0] * self._across + tile[1]],
        )
        return tiles[:number]

    def read(self, row: int, column: int) -> np.ndarray:
        """Decode the tile in a row and column of the grid: ``[<= height, <= width, samples]``, cut to the page."""
        height = min(self.tile[0], self.shape[0] - row * self.tile[0])
        width = min(self.tile[1], self.shape[1] - column * self.tile[1])
        if self._jpeg:
            pixels = self._decode_plain_jpeg(self._jpeg, row * self._across + column)
        elif self._key.is_tiled and self._key.planarconfig == 1:
            pixels = self._decode(row * self._across + column)
        else:
            return self._put_together(row * self.tile[0], column, height, width)
        if pixels.shape[0] < height or pixels.shape[1] < width:
            raise DamagedError(
                f"a tile of {pixels.shape[1]} x {pixels.shape[0]} px where {width} x {height} are due"
            )
        return pixels[:height, :width]

    def _decode_plain_jpeg(self, tiles: JpegTiles, index: int) -> np.ndarray:
        count = self._counts[index]
        return tiles.decode(self._file.read(self._offsets[index], count)) if count else self._blank()

    def _decode(self, index: int) -> np.ndarray:
        """Decode one tile or strip: ``[<= rows, <= columns, samples]``."""
        key, count = self._key, self._counts[index]
        if not count:
            return self._blank()
        data = self._file.read(self._offsets[index], count)
        check_tile(data, key.compression, self._step, self.tile[1])
        if self._options and key.bitspersample == 8 and key.jpegheader is None:
            check_jpeg(data, self._options["jpegtables"])
        pixels = key.decode(data, index, **self._options)[0][0]  # type: ignore[index] # None only of no data
        if key.compression == APERIO_JP2K_YCBCR:
            return ycbcr_to_rgb(pixels)
        return pixels

    def _blank(self) -> np.ndarray:
        samples = self.samples if self._key.planarconfig == 1 else 1
        return np.full((self._step, self.tile[1], samples), self._missing, self._key.dtype)

    def _put_together(self, top: int, column: int, height: int, width: int) -> np.ndarray:
        """Collect the strips, and the separate planes, of which a tile consists."""
        key, step = self._key, self._step
        out = np.zeros((height, width, self.samples), key.dtype)
        down = math.ceil(key.imagelength / step)
        copies = self.samples if key.planarconfig == 2 else 1
        for line in range(top // step, math.ceil((top + height) / step)):
            for copy in range(copies):
                piece = self._decode((copy * down * key.imagedepth + line) * self._across + column)
                part = out[line * step - top :, :, copy : copy + piece.shape[2]]
                rows, columns = min(len(part), len(piece)), min(width, piece.shape[1])
                part[:rows, :columns] = piece[:rows, :columns]
        return out


def _is_plain_jpeg(key: tifffile.TiffPage) -> bool:
    """Tell whether the tiles are ordinary RGB JPEG, as nearly all slides have them."""
    return (
        key.compression == JPEG
        and key.is_tiled
        and key.planarconfig == 1
        and key.samplesperpixel == 3
        and key.bitspersample == 8
        and key.jpegheader is None
        and (key.photometric == 6 or (key.photometric == 2 and not key.is_jfif))
    )


def _tile_of(key: tifffile.TiffPage) -> tuple[int, int]:
    if key.is_tiled:
        return key.tilelength, key.tilewidth
    strip = min(key.rowsperstrip, key.imagelength)
    return strip * max(1, BLOCK // strip), key.imagewidth
