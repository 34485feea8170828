"""JPEG tiles decoded strictly: what libjpeg-turbo would repair, with a warning that nobody sees, is damaged.

Half a tile of zeros decodes to half a tile of grey. simplejpeg asks libjpeg-turbo to stop at a warning; imagecodecs,
which cannot, decodes what simplejpeg does not take (4:1:0 and other rare subsampling). Both give the same pixels.
"""

from __future__ import annotations

import imagecodecs
import numpy as np
import simplejpeg

from napari_kdseg.slides.readers.refusals import DamagedError
from napari_kdseg.slides.readers.tiff.tile_check import check_tile

JPEG = 7
START, END = b"\xff\xd8", b"\xff\xd9"
ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
"""A marker that says which colours the components are; one byte follows: 0 they are RGB, 1 YCbCr."""
DAMAGE = ("Corrupt JPEG data", "Premature end")
"""How libjpeg's warnings of damaged pixels begin; the others are about headers that decode all the same."""


class JpegTiles:
    """Decode the JPEG tiles of one page to RGB.

    Parameters
    ----------
    tables
        JPEG stream of the quantisation and Huffman tables that the tiles share, if they do.
    colours
        ``"RGB"`` or ``"YCBCR"``: what TIFF says the components are.
    tile
        Pixels (height, width) of a tile; those at the edge may be smaller.
    """

    def __init__(self, tables: bytes | None, colours: str, tile: tuple[int, int]):
        self._tables, self._colours, self._tile = tables, colours, tile
        between = b"" if tables is None else tables.removeprefix(START).removesuffix(END)
        self._head = START + ADOBE + (b"\x00" if colours == "RGB" else b"\x01") + between

    def decode(self, data: bytes) -> np.ndarray:
        """Return the uint8 pixels ``[<= height, <= width, 3]`` of one tile.

        Raises
        ------
        DamagedError
            If libjpeg would have to repair it.
        ValueError, imagecodecs.Jpeg8Error
            If it is larger than a tile, or cannot be decoded at all.
        """
        if ADOBE[4:9] in data[:256]:  # its own word on colours would come last, and TIFF's is what counts
            check_jpeg(data, self._tables)
            return self._decode_with_imagecodecs(data)
        try:
            return simplejpeg.decode_jpeg(self._head + data[2:], "RGB", buffer=_room(*self._tile))
        except ValueError as error:
            _refuse_damage(error)
            return self._decode_with_imagecodecs(data)

    def _decode_with_imagecodecs(self, data: bytes) -> np.ndarray:
        check_tile(data, JPEG, *self._tile)
        return imagecodecs.jpeg8_decode(
            data, tables=self._tables, colorspace=self._colours, outcolorspace="RGB"
        )


def check_jpeg(data: bytes, tables: bytes | None = None) -> None:
    """Decode a JPEG coarsely, only to see whether its data are whole, as far as they can be checked.

    Raises
    ------
    DamagedError
        If libjpeg would have to repair them.
    """
    whole = data if tables is None else tables.removesuffix(END) + data[2:]
    try:
        simplejpeg.decode_jpeg(whole, "GRAY", min_factor=8)
    except ValueError as error:
        _refuse_damage(error)


def _refuse_damage(error: ValueError) -> None:
    if str(error).startswith(DAMAGE):
        raise DamagedError("its JPEG data are damaged or cut off") from error


def _room(height: int, width: int) -> np.ndarray:
    """Return an RGB array that does not begin at a multiple of 32 bytes.

    libjpeg-turbo writes to one that does past the processor's cache: decoding then takes 1.2 to 1.5 times as long, and
    whoever reads the pixels next has to fetch them from memory.
    """
    size = height * width * 3
    buffer = np.empty(size + 16, np.uint8)
    start = 8 if buffer.__array_interface__["data"][0] % 16 == 0 else 0
    return buffer[start : start + size].reshape(height, width, 3)
