"""TIFF slides read directly: tiled or striped, pyramids in pages or in SubIFDs, OME-TIFF, any number of channels.

Only the public page interface of tifffile is used: offsets, byte counts and ``TiffPage.decode`` (see ``tiff_page``).
"""

from __future__ import annotations

import contextlib
import math
import threading
from pathlib import Path

import numpy as np
import tifffile

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.address import Asked
from napari_kdseg.slides.readers.backend import Level, Metadata, make_level, sampled
from napari_kdseg.slides.readers.meaning.deciding import Meaning, decide
from napari_kdseg.slides.readers.meaning.numbers import Convert
from napari_kdseg.slides.readers.pictures import Picture, choose_picture, in_words, largest
from napari_kdseg.slides.readers.refusals import NotSupportedError, refusal
from napari_kdseg.slides.readers.tiff.check import check_tiff, quiet_tifffile
from napari_kdseg.slides.readers.tiff.file_bytes import FileBytes
from napari_kdseg.slides.readers.tiff.metadata import properties, scale_of
from napari_kdseg.slides.readers.tiff.ome import ome_channels, open_tiff, significant_bits
from napari_kdseg.slides.readers.tiff.one_piece import open_page
from napari_kdseg.slides.readers.tiff.page import JPEG_IN_TIFFPAGE, PageTiles
from napari_kdseg.slides.readers.tiff.pictures import Plane, TiffPicture, pictures_of, planes_of
from napari_kdseg.slides.readers.tiff.stored import DECODED_TO_RGB, stored_of

MAX_CHANNELS = 64
MAX_ASIDE_PIXELS = 2048**2
"""Other pictures of a file up to this size are shown beside the slide, as labels and macros are."""

Aside = tuple[tifffile.TiffPageSeries, Convert | None]
"""A series, and what makes RGB of its pixels."""


class TiffBackend:
    """Read the segments of the pages of one picture: the largest, or the series that was asked for.

    Of an axis other than y, x, channels or samples (time, focus) the first position is taken. Pages that lie in other
    files (OME-TIFF of a file a channel) are read from those.

    Raises
    ------
    SlideError
        If the file is not an image that can be shown.
    """

    def __init__(self, path: Path, asked: Asked | None = None):
        asked = asked or Asked()
        self._asking = threading.Lock()  # tifffile's own file has one position
        self._files: dict[Path, FileBytes] = {}
        try:
            with quiet_tifffile():
                self._tif = open_tiff(path)
        except Exception as error:  # tifffile raises errors of many types on malformed headers
            raise refusal(path, error) from error
        try:
            with quiet_tifffile():
                self._pictures = pictures_of(self._tif, pages_as_channels=asked.kind == "rgb")
                self._chosen = choose_picture(self._pictures, asked.series)
                picture = self._pictures[self._chosen].content
                levels = planes_of(self._tif, picture)
                self._pages = [[self._tiles_of(plane) for plane in planes] for planes in levels]
                meanings = self._meanings(picture, asked)
                self._convert = [meaning.convert for meaning in meanings]
                self._aside = _aside(self._pictures, self._chosen)
                self.metadata = self._describe(picture, meanings[0])
        except Exception as error:
            self.close()
            raise refusal(path, error) from error

    def read_tile(self, level: int, row: int, column: int) -> np.ndarray:
        """Decode one tile, or as many strips as make one block, of all channels."""
        pixels, convert = self._stored(level, row, column), self._convert[level]
        return pixels if convert is None else convert(pixels)

    def _stored(self, level: int, row: int, column: int) -> np.ndarray:
        planes = [page.read(row, column) for page in self._pages[level]]
        return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)

    def read_associated(self, name: str) -> np.ndarray:
        """Read another picture of the file, in colours."""
        series, convert = self._aside[name]
        with self._asking:
            pixels = np.atleast_3d(series.asarray())
        return pixels if convert is None else convert(pixels)

    def close(self) -> None:
        """Close the file, and those that hold further pages of it."""
        self._tif.close()
        for file in self._files.values():
            file.close()

    def _tiles_of(self, plane: Plane) -> PageTiles:
        """Return the tiles of a plane, from the file where they are; one that was not checked yet is."""
        if plane.file not in self._files:
            if plane.file != Path(self._tif.filehandle.path):
                check_tiff(plane.file)
            self._files[plane.file] = FileBytes(plane.file)
        return open_page(plane.page, self._files[plane.file], shift=plane.shift)

    def _meanings(self, picture: TiffPicture, asked: Asked) -> list[Meaning]:
        """Decide what the numbers of every level mean: those of level 0, unless a level is stored in another way."""
        look = sampled(self._stored, self._levels())
        samples = sum(page.samples for page in self._pages[0])
        names, bits = ome_channels(picture.pixels), significant_bits(picture.pixels)
        meanings: dict[tuple[object, ...], Meaning] = {}
        found = []
        for level in picture.levels:
            key = level.keyframe
            way = (key.photometric, key.compression in DECODED_TO_RGB + JPEG_IN_TIFFPAGE, key.extrasamples)
            if way not in meanings:
                stored = stored_of(key, samples, names, bits, pages=picture.three_pages)
                meanings[way] = decide(stored, asked, look)
            found.append(meanings[way])
        return found

    def _describe(self, picture: TiffPicture, meaning: Meaning) -> Metadata:
        key = picture.key
        if not 1 <= meaning.channels <= MAX_CHANNELS:
            raise NotSupportedError(
                f"it has {meaning.channels} channels, and at most {MAX_CHANNELS} are shown"
            )
        return Metadata(
            reader="tifffile",
            reason="It is a plain TIFF: its tiles are decoded directly.",
            compression=self._pages[0][0].compression,
            levels=self._levels(),
            mpp=scale_of(self._tif, key, picture.pixels),
            icc=key.iccprofile,
            properties=properties(key),
            associated=tuple(self._aside),
            plane=picture.plane,
            pictures=tuple(each.title for each in self._pictures),
            series=self._chosen,
            picture=in_words(self._pictures, self._chosen),
            default_series=largest(self._pictures),
            **meaning.facts(),
        )

    @property
    def orientation(self) -> int:
        """The tag Orientation of the picture that is read: 1 if it lies as it is stored."""
        tag = self._pictures[self._chosen].content.key.tags.get("Orientation")
        return 1 if tag is None else int(tag.value)

    def _levels(self) -> tuple[Level, ...]:
        first = [pages[0] for pages in self._pages]
        return tuple(make_level(page.shape, first[0].shape, page.tile) for page in first)


def _aside(pictures: list[Picture[TiffPicture]], chosen: int) -> dict[str, Aside]:
    """Return the small pictures that lie beside the slide and can be shown in colours, by their names."""
    found: dict[str, Aside] = {}
    for index, each in enumerate(pictures):
        series, key = each.content.levels[0], each.content.key
        plain = len(series.pages) == 1 and key.planarconfig == 1
        if index == chosen or not plain or math.prod(each.shape) > MAX_ASIDE_PIXELS:
            continue
        with contextlib.suppress(SlideError):  # a picture that cannot be shown is none
            meaning = decide(stored_of(key, key.samplesperpixel), Asked(kind="rgb"), list)
            name = each.name.lower() or f"series {index + 1}"
            found[name if name not in found else f"{name} {index + 1}"] = series, meaning.convert
    return found
