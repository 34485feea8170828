"""Numbers as files store them, made into pixels that are shown and predicted on: one function a way of storing them.

All take ``[h, w, samples]`` and return ``[h, w, channels]``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, ImageCms

Convert = Callable[[np.ndarray], np.ndarray]

_CHROMA = np.arange(256, dtype=np.int32) - 128
_HALF, _ONE = 1 << 15, 1 << 16
_RED_CR = (round(1.402 * _ONE) * _CHROMA + _HALF) >> 16
_BLUE_CB = (round(1.772 * _ONE) * _CHROMA + _HALF) >> 16
_GREEN_CR = -round(0.714136286 * _ONE) * _CHROMA
_GREEN_CB = -round(0.344136286 * _ONE) * _CHROMA + _HALF

ASSOCIATED = 1
"""ExtraSamples: transparency, and the colours are multiplied by it already. 2: they are not."""


def to_8_bits(pixels: np.ndarray, white: float) -> np.ndarray:
    """Bring 0 .. ``white`` to 0 .. 255, to the nearest; what lies outside is black or white, NaN is black."""
    if pixels.dtype == np.uint8 and white == 255:
        return pixels
    if pixels.dtype in (np.uint8, np.uint16):
        return _table(pixels.dtype.itemsize, white).take(pixels)
    return _rounded(pixels.astype(np.float64) * (255 / white))


@cache
def _table(size: int, white: float) -> np.ndarray:
    return _rounded(np.arange(256**size, dtype=np.float64) * 255 / white)


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(np.nan_to_num(values), 0, 255)).astype(np.uint8)


def on_white(pixels: np.ndarray, alpha: np.ndarray, white: float, *, multiplied: bool) -> np.ndarray:
    """Lay colours on a white ground and bring them to 8 bits.

    Parameters
    ----------
    pixels, alpha
        Colours ``[h, w, c]`` and opacity ``[h, w, 1]``, both 0 .. ``white``.
    white
        Full colour, and full opacity.
    multiplied
        Whether the colours are multiplied by the opacity already (associated alpha).
    """
    colours, weight = pixels.astype(np.float64), alpha.astype(np.float64)
    if not multiplied:
        colours = colours * weight / white
    return _rounded((colours + white - weight) * (255 / white))


def ycbcr_to_rgb(pixels: np.ndarray) -> np.ndarray:
    """Convert uint8 ``[h, w, 3]`` with the integers of libjpeg, to which OpenSlide rounds too (Aperio's JPEG 2000)."""
    luma, blue, red = pixels[..., 0].astype(np.int32), pixels[..., 1], pixels[..., 2]
    out = np.empty(pixels.shape, np.int32)
    out[..., 0] = luma + _RED_CR[red]
    out[..., 1] = luma + ((_GREEN_CB[blue] + _GREEN_CR[red]) >> 16)
    out[..., 2] = luma + _BLUE_CB[blue]
    return np.clip(out, 0, 255).astype(np.uint8)


def cmyk_to_rgb(pixels: np.ndarray) -> np.ndarray:
    """Convert inks, uint8 ``[h, w, 4]``, as libtiff and Pillow do: light that is left over times light of black."""
    light = 255 - pixels.astype(np.int32)
    product = pixels[..., :3].astype(np.int32) * light[..., 3:] + 128
    return np.clip(light[..., 3:] - ((product + (product >> 8)) >> 8), 0, 255).astype(np.uint8)


def lab_to_rgb(pixels: np.ndarray) -> np.ndarray:
    """Convert CIE L*a*b* (D50; a and b signed), uint8 ``[h, w, 3]``, to sRGB with LittleCMS."""
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels).tobytes()
    image = Image.frombytes("LAB", (width, height), data, "raw", "LAB")
    return np.asarray(ImageCms.applyTransform(image, _lab_transform()))


@cache
def _lab_transform() -> ImageCms.ImageCmsTransform:
    """Exact: the table that LittleCMS makes otherwise is five grey values off in the dark."""
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(*profiles, "LAB", "RGB", flags=ImageCms.Flags.NOOPTIMIZE)


def through_palette(palette: np.ndarray) -> Convert:
    """Return the function that looks indices up in a palette ``[3, colours]`` of 16 bits (some write 8)."""
    colours = palette if palette.max() < 256 else palette >> 8
    table = np.ascontiguousarray(colours.astype(np.uint8).T)
    return lambda pixels: table[pixels[..., 0].astype(np.uint16, copy=False)]


def luma(pixels: np.ndarray) -> np.ndarray:
    """Return the brightness of RGB, uint8 ``[h, w, 1]``: ITU-R 601-2, in the integers of Pillow's mode L."""
    red, green, blue = np.moveaxis(pixels.astype(np.uint32), -1, 0)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)[..., None]


COLOURS: dict[str, Convert] = {"ycbcr": ycbcr_to_rgb, "cmyk": cmyk_to_rgb, "lab": lab_to_rgb}
"""From 8 bits of other colours to RGB."""


def chain(*steps: Convert | None) -> Convert | None:
    """Return one function that does the steps in order; ``None`` is a step that does nothing."""
    real = [step for step in steps if step is not None]
    if len(real) < 2:
        return real[0] if real else None

    def run(pixels: np.ndarray) -> np.ndarray:
        for step in real:
            pixels = step(pixels)
        return pixels

    return run
