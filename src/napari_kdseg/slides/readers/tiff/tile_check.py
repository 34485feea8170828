"""What an encoded tile claims to hold, looked at before a codec makes room for it.

A JPEG of a few bytes may claim 65 000 x 65 000 pixels inside a tile of 256; a codec then asks for 12 GB.
"""

from __future__ import annotations

import struct
from typing import Any

import imagecodecs

from napari_kdseg.slides.readers.refusals import DamagedError, NotSupportedError

JPEG = (6, 7, 33007, 34892)
JPEG_2000 = (33003, 33004, 33005, 34712)
JPEG_XL = (50002, 52546)
JPEG_XR = (22610, 34934)
LERC = (34887,)
BOUNDED = frozenset({1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 34926, 50000, 50001})
"""None, CCITT, LZW, deflate, PackBits, LZMA, Zstandard, WebP: what they put out is bounded by the tile."""
OPTIONAL: dict[tuple[int, ...], Any] = {
    JPEG_XL: imagecodecs.JPEGXL,
    JPEG_XR: imagecodecs.JPEGXR,
    LERC: imagecodecs.LERC,
}
"""What imagecodecs has on some platforms only."""

CODESTREAM = b"\xff\x4f\xff\x51"
END = b"\xff\xd9"
JPEG_XL_BOX = b"\0\0\0\x0cJXL \r\n\x87\n"


def check_compression(compression: int) -> None:
    """Check that tiles of a compression (TIFF's number) can be decoded here.

    Raises
    ------
    NotSupportedError
        If not.
    """
    known = BOUNDED.union(JPEG, JPEG_2000, *(codes for codes, codec in OPTIONAL.items() if codec.available))
    if compression not in known:
        name = getattr(compression, "name", None)
        raise NotSupportedError(f"its pixels are compressed by {name or f'method {compression}'}")


def check_tile(data: bytes, compression: int, height: int, width: int) -> None:
    """Check that an encoded tile holds no more pixels than a tile has, and comes to its end where that can be told.

    Raises
    ------
    DamagedError
        If it claims more, no size can be found, or its end is missing.
    """
    for codes, size_of in SIZES.items():
        if compression in codes:
            claimed = size_of(data)
            if claimed[0] > height or claimed[1] > width:
                raise DamagedError(
                    f"it claims {claimed[1]} x {claimed[0]} px in a tile of {width} x {height}"
                )
    if compression in JPEG_2000 and not data.rstrip(b"\0").endswith(END):
        raise DamagedError("its JPEG 2000 data do not come to their end")


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Return the (height, width) in the frame header of a JPEG."""
    offset = 2
    while offset + 9 <= len(data):
        if data[offset] != 0xFF:
            break
        marker = data[offset + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, offset + 5)
            return height, width
        if marker == 0xFF or 0xD0 <= marker <= 0xD8:  # padding, or a marker without content
            offset += 1 if marker == 0xFF else 2
            continue
        offset += 2 + struct.unpack_from(">H", data, offset + 2)[0]
    raise DamagedError("no size is found in a JPEG tile")


def jpeg_2000_size(data: bytes) -> tuple[int, int]:
    """Return the (height, width) in the first header of a JPEG 2000 codestream."""
    start = data.find(CODESTREAM)
    if start < 0 or start + 24 > len(data):
        raise DamagedError("no size is found in a JPEG 2000 tile")
    right, lower, left, upper = struct.unpack_from(">IIII", data, start + 8)
    return lower - upper, right - left


def jpeg_xl_size(data: bytes) -> tuple[int, int]:
    """Return the (height, width) in the header of a JPEG XL codestream, bare or in a container (ISO 18181-1)."""
    start = data.find(b"\xff\x0a", 0, 4096)
    if start < 0 or (start and not data.startswith(JPEG_XL_BOX)):
        raise DamagedError("no size is found in a JPEG XL tile")
    bits = int.from_bytes(data[start + 2 : start + 14].ljust(12, b"\0"), "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    in_eights = take(1)

    def side() -> int:
        return (take(5) + 1) * 8 if in_eights else take((9, 13, 18, 30)[take(2)]) + 1

    height = side()
    ratio = take(3)
    if not ratio:
        return height, side()
    across, down = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height, height * across // down


def jpeg_xr_size(data: bytes) -> tuple[int, int]:
    """Return the (height, width) in the table of a JPEG XR file, and see that its pixels are all there."""
    found = {}
    if data[:4] == b"II\xbc\x01" and len(data) > 8:
        (start,) = struct.unpack_from("<I", data, 4)
        count = int.from_bytes(data[start : start + 2], "little")
        for at in range(start + 2, min(start + 2 + 12 * count, len(data) - 11), 12):
            tag, kind = struct.unpack_from("<HH", data, at)
            found[tag] = struct.unpack_from("<H" if kind == 3 else "<I", data, at + 8)[0]
    if not {0xBC80, 0xBC81, 0xBCC0, 0xBCC1} <= found.keys():
        raise DamagedError("no size is found in a JPEG XR tile")
    if found[0xBCC0] + found[0xBCC1] > len(data):
        raise DamagedError("its JPEG XR data are cut off")
    return found[0xBC81], found[0xBC80]


def lerc_size(data: bytes) -> tuple[int, int]:
    """Return the (height, width) in the header of a LERC 2 blob."""
    if data[:6] != b"Lerc2 " or len(data) < 22:
        raise DamagedError("no size is found in a LERC tile")
    (version,) = struct.unpack_from("<i", data, 6)
    height, width = struct.unpack_from("<ii", data, 14 if version >= 3 else 10)  # a checksum comes between
    return height, width


SIZES = {
    JPEG: jpeg_size,
    JPEG_2000: jpeg_2000_size,
    JPEG_XL: jpeg_xl_size,
    JPEG_XR: jpeg_xr_size,
    LERC: lerc_size,
}
