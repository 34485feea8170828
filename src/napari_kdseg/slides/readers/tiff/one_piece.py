"""Pages stored in one strip, as simple programs write them: read row by row, or decoded once."""

from __future__ import annotations

import threading

import numpy as np
import tifffile

from napari_kdseg.slides.readers.backend import BLOCK
from napari_kdseg.slides.readers.tiff.file_bytes import FileBytes
from napari_kdseg.slides.readers.tiff.page import PageTiles

BAND_BYTES = 2**21
"""Of the rows that are read at a time."""


def open_page(page: tifffile.TiffPage, file: FileBytes, shift: int = 0) -> PageTiles:
    """Return what reads a page in pieces of a good size, however it is stored."""
    key = page.keyframe
    if (
        key.is_tiled
        or key.planarconfig != 1
        or key.rowsperstrip < key.imagelength
        or key.imagelength <= BLOCK
    ):
        return PageTiles(page, file, shift=shift)
    plain = key.compression == 1 and key.bitspersample % 8 == 0 and key.fillorder == 1
    return (RowsOfAPage if plain else DecodedPage)(page, file, shift=shift)


class RowsOfAPage(PageTiles):
    """An uncompressed strip: any number of its rows is one read of the file."""

    def __init__(self, page: tifffile.TiffPage, file: FileBytes, shift: int = 0):
        super().__init__(page, file, shift=shift)
        order = page.keyframe.parent.byteorder
        self._stored = np.dtype(page.keyframe.dtype).newbyteorder(order)
        self._row_bytes = self.shape[1] * self.samples * self._stored.itemsize
        self.tile = (max(1, min(BLOCK, BAND_BYTES // self._row_bytes)), self.shape[1])

    def read(self, row: int, column: int) -> np.ndarray:  # noqa: ARG002
        """Read a band of rows; there is one column."""
        top = row * self.tile[0]
        height = min(self.tile[0], self.shape[0] - top)
        data = self._file.read(self._offsets[0] + top * self._row_bytes, height * self._row_bytes)
        pixels = np.frombuffer(data, self._stored).reshape(height, self.shape[1], self.samples)
        return pixels.astype(self._stored.newbyteorder("="))


class DecodedPage(PageTiles):
    """A compressed strip: decoded when it is first looked at, and held in memory, as a PNG is."""

    def __init__(self, page: tifffile.TiffPage, file: FileBytes, shift: int = 0):
        super().__init__(page, file, shift=shift)
        self.tile = (BLOCK, BLOCK)
        self._decoding = threading.Lock()
        self._pixels: np.ndarray | None = None

    def read(self, row: int, column: int) -> np.ndarray:
        """Cut one tile out of the page."""
        with self._decoding:
            if self._pixels is None:
                self._pixels = self._put_together(0, 0, *self.shape)
        top, left = row * BLOCK, column * BLOCK
        return self._pixels[top : top + BLOCK, left : left + BLOCK].copy()
