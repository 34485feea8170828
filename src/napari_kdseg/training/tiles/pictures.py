"""Pictures on disk as arrays: images as ``uint8 [H, W, C]``, masks as ``uint8 [H, W]``.

TIFF is read by tifffile (multi-channel files), everything else by Pillow.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

TIFF, JPEG = (".tif", ".tiff"), (".jpg", ".jpeg")
SUFFIXES = (".png", *TIFF, *JPEG)


class PictureError(Exception):
    """A picture that cannot be used; the message names the file and says why."""


def picture_header(path: Path) -> tuple[tuple[int, int], int]:
    """Read size ``(height, width)`` and number of channels (without alpha), but no pixels."""
    try:
        if _is_tiff(path):
            with tifffile.TiffFile(path) as file:
                series = file.series[0]
                shape, axes = series.shape, series.axes
            if len(shape) == 2:
                return (shape[0], shape[1]), 1
            if len(shape) == 3:
                return _plane_shape(shape, axes)
            raise PictureError(f"{path.name} (is a stack of {len(shape)} dimensions)")
        with Image.open(path) as image:
            return (image.height, image.width), 1 if _is_grey(image.mode) else 3
    except PictureError:
        raise
    except Exception as error:  # a damaged file raises whatever its decoder raises
        raise PictureError(f"{path.name} ({_reason(error)})") from error


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
        ``uint8 [H, W, channels]``.

    Raises
    ------
    PictureError
        If it cannot be read, or has another depth or number of channels.
    """
    pixels = _read(path, rgb=True)
    if pixels.dtype != np.uint8:
        raise PictureError(f"{path.name} (has {pixels.dtype} values; convert it to 8 bits)")
    if pixels.shape[2] in (2, 4) and pixels.shape[2] == channels + 1:
        pixels = pixels[..., :channels]
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
        ``uint8 [H, W]``.

    Raises
    ------
    PictureError
        If it cannot be read, is in colour, or holds values above 255.
    """
    pixels = _read(path, rgb=False)
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
    return mask


def _read(path: Path, *, rgb: bool) -> np.ndarray:
    """Decode a picture to ``[H, W, C]`` in its own depth."""
    try:
        if _is_tiff(path):
            pixels, axes = tifffile.imread(path), _axes(path)
            if pixels.ndim == 3 and _plane_shape(pixels.shape, axes)[0] != pixels.shape[:2]:
                pixels = np.moveaxis(pixels, 0, -1)
        else:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB") if rgb and _needs_rgb(image.mode) else image)
    except PictureError:
        raise
    except Exception as error:  # a damaged file raises whatever its decoder raises
        raise PictureError(f"{path.name} ({_reason(error)})") from error
    if pixels.ndim not in (2, 3):
        raise PictureError(f"{path.name} (is a stack of {pixels.ndim} dimensions)")
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _axes(path: Path) -> str:
    with tifffile.TiffFile(path) as file:
        return file.series[0].axes


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


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "is not an image, or damaged" if type(error).__name__ == "UnidentifiedImageError" else text
