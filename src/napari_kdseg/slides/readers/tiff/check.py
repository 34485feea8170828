"""Look at the headers of a TIFF before a native library does: a crafted one can make it end the whole process.

A 60 000 px tile in a 3 kB file makes OpenSlide ask for 14 GB, and GLib aborts where it is refused.
"""

from __future__ import annotations

import logging
import math
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_kdseg.slides.readers.refusals import DamagedError, NotSupportedError, refusal

MAX_TILE_PIXELS = 4096**2
MAX_STRIP_BYTES = 64 * 2**20
MAX_TILE_BYTES = 256 * 2**20
MAX_PIXELS = 2**40
MAX_PAGES = 1000
NUMBERS = (
    "imagewidth",
    "imagelength",
    "tilewidth",
    "tilelength",
    "rowsperstrip",
    "samplesperpixel",
    "bitspersample",
    "compression",
    "photometric",
    "planarconfig",
)
"""Attributes of a page of tifffile; of damaged headers they may be tuples, bytes or nothing."""
MAX_PICTURE_BYTES = 2**29
"""Of a compressed image in one piece, which is decoded once and held in memory, as a PNG is."""
TOO_MANY = f"it holds {{}} images, and at most {MAX_PAGES} are read"
SAVE_ONE = "Save the image that is wanted, such as one time point, as a file of its own."
SMALLER_TILES = (
    "Save it as a tiled TIFF with the program that wrote it; tiles of 256 or 512 pixels are usual."
)
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_tiff(path: Path) -> bool:
    """Tell by its first bytes whether a file is a TIFF or a BigTIFF."""
    with path.open("rb") as stream:
        return stream.read(4) in MAGIC


@contextmanager
def quiet_tifffile() -> Iterator[None]:
    """Keep the hundreds of lines that tifffile logs about a malformed header out of the log of this thread."""
    here, logger = threading.get_ident(), logging.getLogger("tifffile")

    def elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != here

    logger.addFilter(elsewhere)
    try:
        yield
    finally:
        logger.removeFilter(elsewhere)


def check_tiff(path: Path) -> None:
    """Check sizes and offsets in all pages.

    Raises
    ------
    SlideError
        If anything is missing from the file, or larger than any slide needs.
    """
    try:
        with quiet_tifffile(), tifffile.TiffFile(path) as tif:
            if len(tif.pages) > MAX_PAGES:
                raise NotSupportedError(TOO_MANY.format(f"{len(tif.pages)}"), SAVE_ONE)
            if not _list_is_whole(tif):
                raise DamagedError("the list of the images in it is cut off")
            size = path.stat().st_size
            for page in _all_pages(tif):
                _check_page(page, size, is_ndpi=bool(tif.is_ndpi))
    except Exception as error:  # tifffile raises errors of many types on malformed headers
        raise refusal(path, error) from error


def _list_is_whole(tif: tifffile.TiffFile) -> bool:
    """Tell whether the chain of pages comes to its end; tifffile stops silently where it points beyond the file."""
    try:
        last, form, handle = tif.pages[-1], tif.tiff, tif.filehandle
    except IndexError:
        return False
    handle.seek(last.offset)
    (tags,) = struct.unpack(form.tagnoformat, handle.read(form.tagnosize))
    handle.seek(last.offset + form.tagnosize + tags * form.tagsize)
    end = handle.read(form.offsetsize)
    return len(end) == form.offsetsize and not any(end)


def _all_pages(tif: tifffile.TiffFile) -> list[Any]:
    pages: list[Any] = []
    for index in range(len(tif.pages)):
        page: Any = tif.pages[index]
        pages.append(page)
        if page.subifds:
            if len(page.subifds) + len(pages) > MAX_PAGES:
                raise NotSupportedError(TOO_MANY.format(f"more than {MAX_PAGES}"), SAVE_ONE)
            pages.extend(page.pages[i] for i in range(len(page.subifds)))
    return pages


def _check_page(page: tifffile.TiffPage, file_size: int, *, is_ndpi: bool) -> None:
    """Check one page.

    Raises
    ------
    DamagedError, NotSupportedError
        If something is wrong with it, or it is larger than what is read.
    """
    page = page.keyframe
    if not all(isinstance(getattr(page, name), int) for name in NUMBERS):
        raise DamagedError("a number in its headers is none")
    width, height = page.imagewidth, page.imagelength
    if width < 1 or height < 1 or page.samplesperpixel < 1:
        raise DamagedError(f"an image in it has no pixels ({width} x {height})")
    if width * height > MAX_PIXELS:
        raise DamagedError(f"an image in it claims {width} x {height} pixels")
    if page.is_tiled:
        _check_tiles(page)
    elif not is_ndpi:  # NDPI levels are one JPEG each, read by its restart markers
        _check_strips(page)
    _check_places(page, file_size, 1 if is_ndpi else _segments(page))


def _check_tiles(page: tifffile.TiffPage) -> None:
    if page.tilewidth < 1 or page.tilelength < 1:
        raise DamagedError(f"its tiles have no pixels ({page.tilewidth} x {page.tilelength})")
    if page.tilewidth * page.tilelength > MAX_TILE_PIXELS:
        raise NotSupportedError(
            f"it claims tiles of {page.tilewidth} x {page.tilelength} pixels", SMALLER_TILES
        )
    samples = page.samplesperpixel * math.ceil(page.bitspersample / 8)
    if page.tilewidth * page.tilelength * samples > MAX_TILE_BYTES:
        raise NotSupportedError(f"it claims {samples} bytes for every pixel of its tiles", SMALLER_TILES)


def _check_strips(page: tifffile.TiffPage) -> None:
    rows = min(page.rowsperstrip, page.imagelength)
    if rows < 1:
        raise DamagedError("its strips have no rows")
    if strip_bytes(page) > (MAX_STRIP_BYTES if rows < page.imagelength else MAX_PICTURE_BYTES):
        raise NotSupportedError(
            f"it holds {page.imagewidth} x {rows} pixels in one piece; a slide has to be stored in tiles",
            SMALLER_TILES,
        )


def strip_bytes(page: tifffile.TiffPage) -> int:
    """Return the memory that one strip of a page takes when decoded; none if its rows can be read one by one."""
    if page.compression == 1:
        return 0
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    rows = min(page.rowsperstrip, page.imagelength)
    return rows * page.imagewidth * samples * math.ceil(page.bitspersample / 8)


def _check_places(page: tifffile.TiffPage, file_size: int, segments: int) -> None:
    offsets, counts = _whole_numbers(page.dataoffsets), _whole_numbers(page.databytecounts)
    if len(offsets) != len(counts) or len(offsets) < segments:
        raise DamagedError("its table of tiles is incomplete")
    beyond = (offsets > file_size) | (counts > file_size) | (offsets + counts > file_size)
    if beyond.any():
        kind = "tiles" if page.is_tiled else "strips"
        raise DamagedError(
            f"it ends before its last pixels: {np.count_nonzero(~beyond)} of {len(beyond)} {kind} of its image "
            f"of {page.imagewidth} x {page.imagelength} pixels are there"
        )


def _whole_numbers(values: Sequence[Any]) -> np.ndarray:
    numbers = np.asarray(values) if len(values) else np.zeros(0, np.uint64)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or (numbers < 0).any():
        raise DamagedError("its table of tiles holds something else than places")
    return numbers.astype(np.uint64)


def _segments(page: tifffile.TiffPage) -> int:
    """Return how many tiles or strips a page has to have."""
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    if not page.is_tiled:
        return planes * math.ceil(page.imagelength / min(page.rowsperstrip, page.imagelength))
    return (
        planes * math.ceil(page.imagelength / page.tilelength) * math.ceil(page.imagewidth / page.tilewidth)
    )
