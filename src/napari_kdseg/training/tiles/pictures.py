"""Pictures on disk as arrays: images as ``uint8 [H, W, C]``, masks as ``uint8 [H, W]``, both as a viewer shows them.

TIFF is read by tifffile (multi-channel files), everything else by Pillow. What an orientation tag says (EXIF, TIFF) is
done to images and masks alike. What cannot be used is refused by :func:`picture_header` already, which reads no pixels,
so that a folder is known to be usable before it is trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

TIFF, JPEG = (".tif", ".tiff"), (".jpg", ".jpeg")
SUFFIXES = (".png", *TIFF, *JPEG)
#: What the numbers in a TIFF file are, where they can be taken as they are.
_PLAIN = ("MINISBLACK", "RGB")
_ORIENTATION = 274
_PNG, _PNG_DEPTH = b"\x89PNG\r\n\x1a\n", 24


class PictureError(Exception):
    """A picture that cannot be used; the message names the file and says why."""


@dataclass(frozen=True)
class PictureHeader:
    """What is known of a picture without its pixels.

    Attributes
    ----------
    size
        ``(height, width)``, upright.
    channels
        Without alpha.
    dtype
        Of a channel as stored, such as ``"uint8"`` or ``"bool"``.
    orientation
        Tag of EXIF or TIFF, 1 (as it is) to 8.
    colours
        RGB of each number of a palette picture, uint8 ``[n, 3]``; ``None`` for others, and for a palette of greys.
    kind
        What its numbers are: ``"RGB"``, ``"PALETTE"``, ``"MINISWHITE"`` ...
    """

    size: tuple[int, int]
    channels: int
    dtype: str
    orientation: int = 1
    colours: np.ndarray | None = None
    kind: str = "RGB"


def picture_header(path: Path) -> PictureHeader:
    """Read what is known of a picture without its pixels.

    Raises
    ------
    PictureError
        If it is none, or a stack.
    """
    with _explained(path):
        if _is_tiff(path):
            with tifffile.TiffFile(path) as file:
                return _tiff_header(file, path)
        with Image.open(path) as image:
            return _header(image, path)


def refuse_image(path: Path, header: PictureHeader) -> None:
    """Refuse what :func:`read_image` cannot make an 8-bit image of.

    Raises
    ------
    PictureError
        With the reason.
    """
    if header.dtype not in ("uint8", "bool"):
        raise PictureError(f"{path.name} (has {header.dtype} values; convert it to 8 bits)")
    if header.kind not in _PLAIN and _is_tiff(path):
        raise PictureError(f"{path.name} (has {header.kind} colours; convert it to RGB)")


def read_image(path: Path, channels: int = 3) -> np.ndarray:
    """Read an image with ``channels`` channels.

    Parameters
    ----------
    path
        PNG, JPEG or TIFF of 8 bits.
    channels
        A grey image is repeated where 3 are asked for; an alpha channel is dropped.

    Returns
    -------
    numpy.ndarray
        ``uint8 [H, W, channels]``, upright.

    Raises
    ------
    PictureError
        If it cannot be read, or has another depth or number of channels.
    """
    pixels, header = _read(path, rgb=True)
    refuse_image(path, header)
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if pixels.shape[2] in (2, 4) and header.channels == pixels.shape[2] - 1:
        pixels = pixels[..., :-1]
    if pixels.shape[2] == 1 and channels == 3:
        pixels = np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] != channels:
        raise PictureError(f"{path.name} (has {pixels.shape[2]} channels instead of {channels})")
    return np.ascontiguousarray(pixels)


def read_mask(path: Path) -> np.ndarray:
    """Read a mask of class numbers.

    The compression of JPEG blurs class numbers, so a JPEG mask can only be black and white: it is cut at 128
    into 0 and 255. A palette image counts by palette index.

    Returns
    -------
    numpy.ndarray
        ``uint8 [H, W]``, upright.

    Raises
    ------
    PictureError
        If it cannot be read, is in colour, or holds values above 255.
    """
    pixels, header = _read(path, rgb=False)
    if header.kind not in (*_PLAIN, "PALETTE"):
        raise PictureError(f"{path.name} (has {header.kind} colours; save class numbers, 0 for background)")
    if pixels.shape[2] in (2, 4):
        pixels = pixels[..., :-1]
    if pixels.shape[2] > 1 and not (pixels == pixels[..., :1]).all():
        raise PictureError(f"{path.name} (is a colour picture; save class numbers in one channel)")
    mask = pixels[..., 0]
    if mask.size and not (mask.dtype.kind in "ub" or (mask.dtype.kind == "i" and mask.min() >= 0)):
        raise PictureError(f"{path.name} (has {mask.dtype} values, which are no class numbers)")
    if mask.size and mask.max() > 255:
        raise PictureError(f"{path.name} (holds values up to {mask.max()}; class numbers end at 254)")
    mask = mask.astype(np.uint8)
    if path.suffix.lower() in JPEG:
        mask = np.where(mask >= 128, np.uint8(255), np.uint8(0))
    return np.ascontiguousarray(mask)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror pixels ``[H, W, ...]`` as an orientation tag says that they are to be shown.

    Parameters
    ----------
    pixels
        As stored: first row, first column.
    orientation
        1 to 8: where the first row and the first column belong (TIFF 6.0, page 36; EXIF has the same). Others mean
        nothing, and leave pixels as they are.
    """
    if orientation in (5, 6, 7, 8):  # rows are columns
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _read(path: Path, *, rgb: bool) -> tuple[np.ndarray, PictureHeader]:
    """Decode a picture to ``[H, W, C]`` in its own depth, upright."""
    with _explained(path):
        if _is_tiff(path):
            with tifffile.TiffFile(path) as file:
                header, pixels = _tiff_header(file, path), file.series[0].asarray()
                if (
                    pixels.ndim == 3
                    and _plane_shape(pixels.shape, file.series[0].axes)[0] != pixels.shape[:2]
                ):
                    pixels = np.moveaxis(pixels, 0, -1)
        else:
            with Image.open(path) as image:
                header = _header(image, path)
                pixels = np.asarray(image.convert("RGB") if rgb and _needs_rgb(image.mode) else image)
    return upright(pixels[..., None] if pixels.ndim == 2 else pixels, header.orientation), header


def _header(image: Image.Image, path: Path) -> PictureHeader:
    """Describe a picture that Pillow opened and did not decode yet."""
    grey, orientation = _is_grey(image.mode), _exif_orientation(image, path)
    dtype = {"1": "bool", "F": "float32", "I": "int32"}.get(image.mode, "uint8")
    if image.mode.startswith("I;16") or _has_16_bits(path):
        dtype = "uint16"
    palette = image.getpalette("RGB") if image.mode == "P" else None
    colours = None if palette is None else _unless_grey(np.array(palette, np.uint8).reshape(-1, 3))
    size = _turned((image.height, image.width), orientation)
    return PictureHeader(
        size, 1 if grey else 3, dtype, orientation, colours, "RGB" if palette is None else "PALETTE"
    )


def _tiff_header(file: tifffile.TiffFile, path: Path) -> PictureHeader:
    series, page = file.series[0], file.series[0].keyframe
    shape = tuple(series.shape)
    if len(shape) not in (2, 3):
        raise PictureError(f"{path.name} (is a stack of {len(shape)} dimensions)")
    size, channels = ((shape[0], shape[1]), 1) if len(shape) == 2 else _plane_shape(shape, series.axes)
    tag = page.tags.get(_ORIENTATION)
    orientation = _known(tag.value if tag is not None else 1)
    kind = getattr(page.photometric, "name", str(page.photometric))
    if kind == "YCBCR" and "JPEG" in getattr(page.compression, "name", ""):  # its decoder makes RGB of it
        kind = "RGB"
    colours = None
    if kind == "PALETTE" and page.colormap is not None:  # 16 bits a colour; some writers fill in 8
        table = np.asarray(page.colormap).T
        colours = _unless_grey((table >> 8 if table.max() > 255 else table).astype(np.uint8))
    return PictureHeader(_turned(size, orientation), channels, str(series.dtype), orientation, colours, kind)


def _exif_orientation(image: Image.Image, path: Path) -> int:
    if image.format == "TIFF":  # under another name; Pillow itself turns it
        return 1
    if image.format == "PNG" and "exif" not in image.info and b"eXIf" in _png_chunks(path):
        return _known(
            image.getexif().get(_ORIENTATION, 1)
        )  # behind the pixels, which are decoded to get there
    return _known(Image.Image.getexif(image).get(_ORIENTATION, 1))


def _known(orientation: object) -> int:
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return size[::-1] if orientation >= 5 else size


def _has_16_bits(path: Path) -> bool:
    """Whether a PNG has 16 bits a channel, of which Pillow keeps 8 without a word where it is in colour."""
    with path.open("rb") as file:
        start = file.read(_PNG_DEPTH + 1)
    return start.startswith(_PNG) and start[_PNG_DEPTH:] == b"\x10"


def _png_chunks(path: Path) -> set[bytes]:
    """Names of the chunks of a PNG, without what is in them."""
    names = set()
    with path.open("rb") as file:
        file.seek(len(_PNG))
        while len(start := file.read(8)) == 8:
            names.add(start[4:])
            file.seek(int.from_bytes(start[:4], "big") + 4, 1)
    return names


def _unless_grey(colours: np.ndarray) -> np.ndarray | None:
    """Return colours; ``None`` where number i is the grey i: such a palette says nothing but the number."""
    grey = (colours == np.arange(len(colours), dtype=np.uint8)[:, None]).all()
    return None if grey else colours


def _plane_shape(shape: tuple[int, ...], axes: str) -> tuple[tuple[int, int], int]:
    """Size and channels of a 3-axis TIFF: channels last where tifffile says so, else where they are fewest."""
    last = axes[-1] == "S" or (axes[0] not in "SC" and shape[2] <= shape[0])
    channels = shape[2] if last else shape[0]
    size = shape[:2] if last else shape[1:]
    return (size[0], size[1]), {2: 1, 4: 3}.get(channels, channels) if axes[-1] == "S" else channels


def _is_tiff(path: Path) -> bool:
    return path.suffix.lower() in TIFF


def _is_grey(mode: str) -> bool:
    return mode in ("1", "L", "LA", "La", "F") or mode.startswith("I")


def _needs_rgb(mode: str) -> bool:
    return not _is_grey(mode) and mode not in ("RGB", "RGBA")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Put what a decoder raises into words: a damaged file raises anything."""
    try:
        yield
    except PictureError:
        raise
    except Exception as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        unknown = type(error).__name__ == "UnidentifiedImageError"
        raise PictureError(f"{path.name} ({'is not an image, or damaged' if unknown else text})") from error
