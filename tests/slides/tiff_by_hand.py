"""A TIFF of one image written byte by byte: any bits, samples, planes, tiles and tags, also those no writer offers."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np

COMPRESSIONS = {"none": 1, "lzw": 5, "deflate": 8, "packbits": 32773}
SHORT, LONG, RATIONAL, LONG8 = 3, 4, 5, 16
FORMS = {SHORT: "H", LONG: "I", RATIONAL: "II", LONG8: "Q"}


def pack(values: np.ndarray, bits: int) -> bytes:
    """Pack rows of samples ``[h, w, s]`` big-endian, every row beginning at a byte."""
    rows = values.reshape(len(values), -1)
    if values.dtype.kind == "f" or bits in (8, 16, 32):
        return rows.astype(values.dtype.newbyteorder("<")).tobytes()
    each = np.unpackbits(rows.astype(">u2").view(np.uint8).reshape(*rows.shape, 2), axis=2)[..., 16 - bits :]
    return np.packbits(each.reshape(len(rows), -1), axis=1).tobytes()


def blocks(pixels: np.ndarray, layout: str, planar: int) -> Iterator[np.ndarray]:
    """Cut an image into its tiles or strips, plane by plane if they are kept apart."""
    planes = [pixels] if planar == 1 else [pixels[..., i : i + 1] for i in range(pixels.shape[2])]
    height, width = pixels.shape[:2]
    for plane in planes:
        if layout != "tiles":
            rows = 7 if layout == "strips" else height
            yield from (plane[y : y + rows] for y in range(0, height, rows))
            continue
        full = np.pad(plane, ((0, -height % 16), (0, -width % 32), (0, 0)), mode="edge")
        for y in range(0, height, 16):
            yield from (full[y : y + 16, x : x + 32] for x in range(0, width, 32))


def encode(block: np.ndarray, bits: int, compression: str, predictor: bool) -> bytes:
    if predictor:
        block = np.diff(block, axis=1, prepend=np.zeros_like(block[:, :1]))
    data = pack(block, bits)
    if compression == "packbits":
        return b"".join(imagecodecs.packbits_encode(data[i : i + 128]) for i in range(0, len(data), 128))
    return {"none": bytes, "lzw": imagecodecs.lzw_encode, "deflate": zlib.compress}[compression](data)


def write_tiff(
    path: Path,
    pixels: np.ndarray,
    *,
    photometric: int,
    bits: int,
    extra: tuple[int, ...] | None = None,
    planar: int = 1,
    compression: str = "none",
    predictor: bool = False,
    layout: str = "strips",
    big: bool = False,
    tags: dict[int, tuple[int, tuple[int, ...]]] | None = None,
) -> Path:
    """Write ``[h, w, s]``; ``tags`` are further ones: number -> (type, values)."""
    height, width, samples = pixels.shape
    body = [encode(block, bits, compression, predictor) for block in blocks(pixels, layout, planar)]
    start = 16 if big else 8
    offsets = [start + sum(map(len, body[:i])) for i in range(len(body))]
    word = LONG8 if big else LONG
    kind = 3 if pixels.dtype.kind == "f" else 1
    said = {
        256: (LONG, (width,)),
        257: (LONG, (height,)),
        258: (SHORT, (bits,) * samples),
        259: (SHORT, (COMPRESSIONS[compression],)),
        262: (SHORT, (photometric,)),
        277: (SHORT, (samples,)),
        284: (SHORT, (planar,)),
        339: (SHORT, (kind,) * samples),
        **({} if extra is None else {338: (SHORT, extra)}),
        **({317: (SHORT, (2,))} if predictor else {}),
    }
    counts = tuple(map(len, body))
    if layout == "tiles":
        said |= {322: (LONG, (32,)), 323: (LONG, (16,)), 324: (word, tuple(offsets)), 325: (word, counts)}
    else:
        rows = 7 if layout == "strips" else height
        said |= {273: (word, tuple(offsets)), 278: (LONG, (rows,)), 279: (word, counts)}
    said |= tags or {}
    _assemble(path, b"".join(body), dict(sorted(said.items())), big)
    return path


def _assemble(path: Path, body: bytes, tags: dict[int, tuple[int, tuple[int, ...]]], big: bool) -> None:
    word, inline, start = ("Q", 8, 16) if big else ("I", 4, 8)
    body += bytes(-len(body) % 2)
    entry_size = 20 if big else 12
    ifd = start + len(body)
    beyond = ifd + (8 if big else 2) + entry_size * len(tags) + inline
    entries, far = b"", b""
    for code, (kind, values) in tags.items():
        count = len(values) // (2 if kind == RATIONAL else 1)
        data = b"".join(struct.pack("<" + FORMS[kind][0], value) for value in values)
        if len(data) > inline:
            place, far = beyond + len(far), far + data + bytes(len(data) % 2)
            data = struct.pack("<" + word, place)
        entries += struct.pack("<HH" + word, code, kind, count) + data.ljust(inline, b"\0")
    head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, ifd) if big else struct.pack("<2sHI", b"II", 42, ifd)
    number = struct.pack("<Q" if big else "<H", len(tags))
    path.write_bytes(head + body + number + entries + bytes(inline) + far)
