"""Aperio and Philips slides: OpenSlide says what is in the file, the pixels are decoded directly, several times faster.

That is done only where the direct pixels were seen to be those of OpenSlide; everything else stays with OpenSlide.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import tifffile

from napari_kdseg.slides.address import Asked
from napari_kdseg.slides.readers.backend import make_level
from napari_kdseg.slides.readers.meaning.deciding import decide
from napari_kdseg.slides.readers.meaning.numbers import Convert
from napari_kdseg.slides.readers.openslide_backend import OpenSlideBackend
from napari_kdseg.slides.readers.tiff.check import quiet_tifffile
from napari_kdseg.slides.readers.tiff.file_bytes import FileBytes
from napari_kdseg.slides.readers.tiff.page import PageTiles
from napari_kdseg.slides.readers.tiff.stored import stored_of

VENDORS = ("aperio", "philips")
WHITE = 255
COMPARED_TILES = 2


class NotDirectError(Exception):
    """The tiles of this file have to be read by OpenSlide; the text says why."""


class ScannerTiffBackend:
    """Read the tiles of the levels that OpenSlide lists.

    Parameters
    ----------
    path
        The file.
    described
        The same file opened by OpenSlide; it is closed with this one.

    Raises
    ------
    NotDirectError
        If the levels cannot be told, tiles are missing, or the pixels are not those of OpenSlide.
    """

    def __init__(self, path: Path, described: OpenSlideBackend):
        self._described = described
        self._file = FileBytes(path)
        try:
            with quiet_tifffile(), tifffile.TiffFile(path) as tif:
                pages = _pages_of_levels(tif, [level.shape for level in described.metadata.levels])
                self._convert = [_to_rgb(page.keyframe) for page in pages]
                self._pages = [
                    PageTiles(page, self._file, missing=WHITE, shape=level.shape)
                    for page, level in zip(pages, described.metadata.levels, strict=True)
                ]
            if described.vendor == "aperio" and not all(page.whole for page in self._pages):
                raise NotDirectError("tiles are missing, which OpenSlide fills from another level")
            self.metadata = self._describe()
            self._compare()
        except NotDirectError:
            self._file.close()
            raise
        except Exception as error:  # tifffile and the codecs raise errors of many types
            self._file.close()
            raise NotDirectError(f"its tiles cannot be decoded directly ({error})") from error

    def read_tile(self, level: int, row: int, column: int) -> np.ndarray:
        """Decode one tile."""
        pixels, convert = self._pages[level].read(row, column), self._convert[level]
        return pixels if convert is None else convert(pixels)

    def read_associated(self, name: str) -> np.ndarray:
        """Read the label, macro or thumbnail through OpenSlide."""
        return self._described.read_associated(name)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._described.close()

    def _describe(self) -> Any:
        shape0 = self._pages[0].shape
        return replace(
            self._described.metadata,
            reader="tifffile",
            reason="Its tiles are decoded directly; they were compared with those of OpenSlide.",
            compression=self._pages[0].compression,
            levels=tuple(make_level(page.shape, shape0, page.tile) for page in self._pages),
        )

    def _compare(self) -> None:
        """Compare the fullest tiles of level 0 with OpenSlide; those it cannot read either are no reason against."""
        there = self.metadata.levels[0]
        for row, column in self._pages[0].fullest(COMPARED_TILES):
            height, width = there.tile_shape(row, column)
            try:
                wanted = self._described.read_region(
                    0, row * there.tile[0], column * there.tile[1], height, width
                )
            except openslide.OpenSlideError:
                continue
            if not np.array_equal(self.read_tile(0, row, column), wanted):
                raise NotDirectError("decoded directly, its pixels differ from those of OpenSlide")


def _to_rgb(key: tifffile.TiffPage) -> Convert | None:
    """Return what makes 8-bit RGB, as OpenSlide gives it, of the pixels of a page."""
    meaning = decide(stored_of(key, key.samplesperpixel), Asked(kind="rgb"), list)
    if meaning.doubt:
        raise NotDirectError(meaning.doubt)
    return meaning.convert


def _pages_of_levels(tif: tifffile.TiffFile, shapes: list[tuple[int, int]]) -> list[Any]:
    """Find the tiled page of every level; Philips pads its pages to whole tiles."""
    pages: list[Any] = [tif.pages[index] for index in range(len(tif.pages))]
    left = [page for page in pages if page.is_tiled]
    found = []
    for height, width in shapes:
        fitting = [
            page
            for page in left
            if 0 <= page.imagelength - height < page.tilelength
            and 0 <= page.imagewidth - width < page.tilewidth
        ]
        if not fitting:
            raise NotDirectError(f"no page of it is the level of {width} x {height} px")
        best = min(fitting, key=lambda page: page.imagelength - height + page.imagewidth - width)
        left.remove(best)
        found.append(best)
    return found
