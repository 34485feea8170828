"""What an encoded tile claims to hold, looked at before a codec makes room for it.

A JPEG of a few bytes may claim 65 000 x 65 000 pixels inside a tile of 256; a codec then asks for 12 GB.
"""

from __future__ import annotations

import struct

JPEG = (6, 7, 33007, 34892)
JPEG_2000 = (33003, 33004, 33005, 34712)
COMPRESSIONS = frozenset(
    {1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 34926, 50000, 50001} | set(JPEG) | set(JPEG_2000)
)
"""None, CCITT, LZW, deflate, PackBits, LZMA, Zstandard, WebP, JPEG, JPEG 2000: their output is bounded."""

CODESTREAM = b"\xff\x4f\xff\x51"


def check_tile(data: bytes, compression: int, height: int, width: int) -> None:
    """Check that an encoded tile holds no more pixels than a tile has.

    Raises
    ------
    ValueError
        If it claims more, or no size can be found.
    """
    if compression in JPEG:
        claimed = jpeg_size(data)
    elif compression in JPEG_2000:
        claimed = jpeg_2000_size(data)
    else:
        return
    if claimed[0] > height or claimed[1] > width:
        raise ValueError(f"it claims {claimed[1]} x {claimed[0]} px in a tile of {width} x {height}")


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
    raise ValueError("no size is found in a JPEG tile")


def jpeg_2000_size(data: bytes) -> tuple[int, int]:
    """Return the (height, width) in the first header of a JPEG 2000 codestream."""
    start = data.find(CODESTREAM)
    if start < 0 or start + 24 > len(data):
        raise ValueError("no size is found in a JPEG 2000 tile")
    right, lower, left, upper = struct.unpack_from(">IIII", data, start + 8)
    return lower - upper, right - left
