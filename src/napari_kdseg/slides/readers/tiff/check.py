"""Look at the headers of a TIFF before a native library does: a crafted one can make it end the whole process.

A 60 000 px tile in a 3 kB file makes OpenSlide ask for 14 GB, and GLib aborts where it is refused.
"""

from __future__ import annotations

import logging
import math
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_kdseg.errors import SlideError

MAX_TILE_PIXELS = 4096**2
MAX_STRIP_BYTES = 64 * 2**20
MAX_TILE_BYTES = 256 * 2**20
MAX_PIXELS = 2**40
MAX_PAGES = 1000
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_tiff(path: Path) -> bool:
    """Tell by its first bytes whether a file is a TIFF or a BigTIFF."""
    with path.open("rb") as stream:
        return stream.read(4) in MAGIC


def damaged(path: Path, reason: object) -> SlideError:
    """Say that a file cannot be read, and why."""
    return SlideError(
        f"This slide is truncated or damaged: {reason}. Copy {path.name} again from where it came from."
    )


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
                raise damaged(path, f"it claims {len(tif.pages)} images, more than {MAX_PAGES}")
            if not _list_is_whole(tif):
                raise damaged(path, "the list of the images in it is cut off")
            size = path.stat().st_size
            for page in _all_pages(tif):
                problem = _problem(page, size, is_ndpi=bool(tif.is_ndpi))
                if problem:
                    raise damaged(path, problem)
    except SlideError:
        raise
    except Exception as error:  # tifffile raises errors of many types on malformed headers
        raise damaged(path, error) from error


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
                raise ValueError(f"it claims more than {MAX_PAGES} images")
            pages.extend(page.pages[i] for i in range(len(page.subifds)))
    return pages


def _problem(page: tifffile.TiffPage, file_size: int, *, is_ndpi: bool) -> str | None:
    """Say what is wrong with a page, if anything is."""
    page = page.keyframe
    width, height = page.imagewidth, page.imagelength
    if width < 1 or height < 1 or page.samplesperpixel < 1:
        return f"an image in it has no pixels ({width} x {height})"
    if width * height > MAX_PIXELS:
        return f"an image in it claims {width} x {height} pixels"
    if page.is_tiled:
        if page.tilewidth < 1 or page.tilelength < 1:
            return f"its tiles have no pixels ({page.tilewidth} x {page.tilelength})"
        if page.tilewidth * page.tilelength > MAX_TILE_PIXELS:
            return f"it claims tiles of {page.tilewidth} x {page.tilelength} pixels"
        samples = page.samplesperpixel * math.ceil(page.bitspersample / 8)
        if page.tilewidth * page.tilelength * samples > MAX_TILE_BYTES:
            return f"it claims {samples} bytes for every pixel of its tiles"
    elif not is_ndpi:  # NDPI levels are one JPEG each, read by its restart markers
        rows = min(page.rowsperstrip, height)
        strip = rows * width * page.samplesperpixel * math.ceil(page.bitspersample / 8)
        if rows < 1:
            return "its strips have no rows"
        if strip > MAX_STRIP_BYTES:
            return f"it holds {width} x {rows} pixels in one piece; a slide has to be stored in tiles"
    offsets, counts = np.asarray(page.dataoffsets, np.uint64), np.asarray(page.databytecounts, np.uint64)
    if len(offsets) != len(counts) or len(offsets) < (1 if is_ndpi else _segments(page)):
        return "its table of tiles is incomplete"
    if (offsets > file_size).any() or (counts > file_size).any() or (offsets + counts > file_size).any():
        return "it ends before its last pixels"
    return None


def _segments(page: tifffile.TiffPage) -> int:
    """Return how many tiles or strips a page has to have."""
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    if not page.is_tiled:
        return planes * math.ceil(page.imagelength / min(page.rowsperstrip, page.imagelength))
    return (
        planes * math.ceil(page.imagelength / page.tilelength) * math.ceil(page.imagewidth / page.tilewidth)
    )
