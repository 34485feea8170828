"""Pyramids of tiles as TIFF: like an Aperio scanner's (SVS), OME-TIFF with SubIFDs, or plain pages.

RGB under JPEG is stored as YCbCr with halved colour, as scanners do: tifffile is told that the pixels are RGB and that
the codec shall make YCbCr of them. (``photometric="ycbcr"`` would store RGB values under a wrong name.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_kdseg.slides.geometry import Pair
from napari_kdseg.slides.writing.pyramid import Pyramid

CLASSIC_LIMIT = 3.5 * 2**30
"""Bytes of raw pixels above which BigTIFF is written, so that no file outgrows 32-bit offsets whatever the codec."""

CODECS = {"jpeg": "jpeg", "deflate": "adobe_deflate", "lzw": "lzw", "zstd": "zstd", "none": None}
BUFFER = 2**25
THUMBNAIL_SIDE = 1024


@dataclass
class TiffContent:
    """What goes into a file beside the pixels of the pyramid.

    Attributes
    ----------
    name
        Of the slide.
    mpp
        Micrometres per level-0 pixel (y, x).
    compression, quality
        One of :data:`CODECS`, and that of JPEG in 1 to 100.
    icc
        ICC profile.
    channel_names
        One per channel.
    pictures
        ``label`` and ``macro``: uint8 ``[h, w, 3]``; only an SVS has a place for them.
    progress
        Called after every tile; may raise to stop.
    """

    name: str
    mpp: Pair | None
    compression: str = "jpeg"
    quality: int = 85
    icc: bytes | None = None
    channel_names: tuple[str, ...] = ()
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    progress: Callable[[], None] = lambda: None


def write_svs(path: Path, pyramid: Pyramid, content: TiffContent) -> None:
    """Write RGB like an Aperio scanner: pages of tiles, a thumbnail after the first, label and macro at the end."""
    height, width = pyramid.levels[0].shape
    pyramid.keep_overview(THUMBNAIL_SIDE)
    with _writer(path, pyramid) as tif:
        for level, (rows, columns) in enumerate(each.shape for each in pyramid.levels):
            size = f"{width}x{height}" if level == 0 else f"{width}x{height} -> {columns}x{rows}"
            text = (
                f"{_aperio()}\r\n{size} [0,0 {width}x{height}] ({pyramid.tile}x{pyramid.tile}) "
                f"{_aperio_codec(content)}{_aperio_facts(content)}"
            )
            tif.write(
                _tiles(pyramid, level, content),
                **_level_options(pyramid, level, content),
                description=text,
                metadata=None,
            )
            if level == 0:
                small = pyramid.overview
                size = f"{width}x{height} -> {small.shape[1]}x{small.shape[0]}"
                text = f"{_aperio()}\r\n{size} - {_aperio_facts(content)}"
                _write_picture(tif, small, text, subfiletype=0)
        for name, kind in (("label", 1), ("macro", 9)):
            if name in content.pictures:
                picture = content.pictures[name]
                text = f"{_aperio()}\r\n{name} {picture.shape[1]}x{picture.shape[0]}"
                _write_picture(tif, picture, text, subfiletype=kind)


def write_ome_tiff(path: Path, pyramid: Pyramid, content: TiffContent) -> None:
    """Write an OME-TIFF whose coarser levels are SubIFDs; channels that are no RGB become planes."""
    planar = not _is_rgb(pyramid)
    metadata: dict[str, Any] = {"axes": "CYX" if planar else "YXS", "Name": content.name}
    if content.mpp is not None:
        for axis, size in zip("YX", content.mpp, strict=True):
            metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
    if planar and content.channel_names:
        metadata["Channel"] = {"Name": list(content.channel_names)}
    with _writer(path, pyramid, ome=True) as tif:
        for level in range(len(pyramid.levels)):
            first: dict[str, Any] = {"subifds": len(pyramid.levels) - 1, "metadata": metadata}
            tif.write(
                _planes(pyramid, level, content) if planar else _tiles(pyramid, level, content),
                **_level_options(pyramid, level, content, planes=planar),
                **(first if level == 0 else {"subfiletype": 1, "metadata": None}),
            )


def write_plain_tiff(path: Path, pyramid: Pyramid, content: TiffContent) -> None:
    """Write a TIFF with one page a level; a mask is one channel of class numbers."""
    with _writer(path, pyramid) as tif:
        for level in range(len(pyramid.levels)):
            tif.write(
                _tiles(pyramid, level, content),
                **_level_options(pyramid, level, content),
                subfiletype=int(level > 0),
                metadata=None,
            )


# -- pages -------------------------------------------------------------------------------------------


def _writer(path: Path, pyramid: Pyramid, *, ome: bool = False) -> tifffile.TiffWriter:
    pixels = sum(height * width for height, width in (level.shape for level in pyramid.levels))
    raw = pixels * pyramid.channels * pyramid.dtype.itemsize
    return tifffile.TiffWriter(path, bigtiff=raw > CLASSIC_LIMIT, ome=ome)


def _is_rgb(pyramid: Pyramid) -> bool:
    return pyramid.channels == 3 and pyramid.dtype == np.uint8


def _level_options(
    pyramid: Pyramid, level: int, content: TiffContent, *, planes: bool = False
) -> dict[str, Any]:
    shape = pyramid.levels[level].shape
    rgb = _is_rgb(pyramid)
    samples = () if planes or pyramid.channels == 1 else (pyramid.channels,)
    options: dict[str, Any] = {
        "shape": (pyramid.channels, *shape) if planes else (*shape, *samples),
        "dtype": pyramid.dtype,
        "tile": (pyramid.tile, pyramid.tile),
        "photometric": "rgb" if rgb else "minisblack",
        "iccprofile": content.icc,
        "compression": CODECS[content.compression],
        "buffersize": BUFFER,
    }
    if content.compression == "jpeg":
        options["compressionargs"] = {"level": content.quality}
        if rgb:
            options["compressionargs"]["outcolorspace"] = "ycbcr"
            options["subsampling"] = (2, 2)
    elif content.compression != "none":
        options["predictor"] = rgb or pyramid.dtype.itemsize > 1
    if content.mpp is not None:
        factor = pyramid.downsamples[level]
        options["resolution"] = (10_000 / (content.mpp[1] * factor[1]), 10_000 / (content.mpp[0] * factor[0]))
        options["resolutionunit"] = "CENTIMETER"
    return options


def _tiles(pyramid: Pyramid, level: int, content: TiffContent) -> Iterator[np.ndarray]:
    """Yield whole tiles: those at the edge are continued outward, which compresses well."""
    for _, pixels in pyramid.tiles(level):
        content.progress()
        yield _whole(pixels if pyramid.channels > 1 else pixels[..., 0], pyramid.tile)


def _planes(pyramid: Pyramid, level: int, content: TiffContent) -> Iterator[np.ndarray]:
    """Yield the tiles of one channel after the other."""
    for channel in range(pyramid.channels):
        for _, pixels in pyramid.tiles(level):
            content.progress()
            yield _whole(pixels[..., channel], pyramid.tile)


def _whole(pixels: np.ndarray, tile: int) -> np.ndarray:
    missing = [(0, tile - side) for side in pixels.shape[:2]]
    if any(after for _, after in missing):
        return np.pad(pixels, missing + [(0, 0)] * (pixels.ndim - 2), mode="edge")
    return np.ascontiguousarray(pixels)


# -- what an Aperio file says --------------------------------------------------------------------------


def _aperio() -> str:
    """The first line: readers know the format by its first word."""
    return f"Aperio Image Library (written by napari-kdseg {version('napari-kdseg')})"


def _aperio_codec(content: TiffContent) -> str:
    return f"JPEG/RGB Q={content.quality}" if content.compression == "jpeg" else f"{content.compression}/RGB"


def _aperio_facts(content: TiffContent) -> str:
    name = content.name.replace("|", " ").encode("ascii", "replace").decode()
    if content.mpp is None:
        return f"|Filename = {name}"
    mpp = (content.mpp[0] + content.mpp[1]) / 2
    return f"|AppMag = {10 / mpp:.4g}|MPP = {mpp:.6g}|Filename = {name}"


def _write_picture(tif: tifffile.TiffWriter, picture: np.ndarray, text: str, *, subfiletype: int) -> None:
    """Write a small picture in strips, by which readers tell it from a level."""
    tif.write(
        picture,
        photometric="rgb",
        rowsperstrip=16,
        compression="jpeg",
        compressionargs={"level": 85, "outcolorspace": "ycbcr"},
        subsampling=(2, 2),
        description=text,
        subfiletype=subfiletype,
        metadata=None,
    )
