"""What a page of a TIFF says of its numbers: photometric, samples, extra samples, bits, and the largest value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tifffile

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.readers.meaning.stored import COLOUR_SAMPLES, Colours, Stored
from napari_kdseg.slides.readers.tiff.page import JPEG_IN_TIFFPAGE

MIN_IS_WHITE, MIN_IS_BLACK, YCBCR, CIELAB = 0, 1, 6, 8
PHOTOMETRIC: dict[int, Colours] = {
    MIN_IS_WHITE: "grey",
    MIN_IS_BLACK: "grey",
    2: "rgb",
    3: "palette",
    5: "cmyk",
    YCBCR: "ycbcr",
    CIELAB: "lab",
}
UNREAD = {
    4: "a transparency mask",
    9: "ICCLab",
    10: "ITULab",
    32803: "the raw values of a camera (CFA)",
    32844: "LogL",
    32845: "LogLuv",
    34892: "the raw values of a camera (LinearRaw)",
    51177: "a map of depths",
}
DECODED_TO_RGB = (33003, 33004, 33005, 50001)
"""JPEG 2000 of Aperio, and WebP: RGB whatever the photometric says."""

SUBSAMPLING, REFERENCE, COEFFICIENTS, INK_SET, MAX_SAMPLE, S_MAX_SAMPLE = 530, 532, 529, 332, 281, 341


def stored_of(
    key: tifffile.TiffPage,
    samples: int,
    names: Sequence[str] = (),
    significant_bits: int = 0,
    *,
    pages: bool = False,
) -> Stored:
    """Return what is said of the numbers of a page.

    Parameters
    ----------
    key
        The page.
    samples
        Of all pages that hold channels of it.
    names, significant_bits
        As OME-XML says them.
    pages
        Whether it is the first of three.

    Raises
    ------
    SlideError
        If its pixels cannot be decoded at all.
    """
    colours = PHOTOMETRIC.get(int(key.photometric), "other")
    unread = UNREAD.get(
        int(key.photometric), "" if colours != "other" else f"photometric {int(key.photometric)}"
    )
    if colours == "ycbcr":
        colours, unread = _ycbcr(key)
    elif int(key.compression) in DECODED_TO_RGB and samples >= 3:
        colours, unread = "rgb", ""
    if colours == "lab" and key.bitspersample != 8:
        unread = f"CIELab of {key.bitspersample} bits"
    if colours == "cmyk" and _tag(key, INK_SET, 1) != 1:
        unread = "inks that are not CMYK"
    if samples != key.samplesperpixel:  # channels with a page each
        colours = "grey"
    extra = _extra(key, colours, samples)
    if colours == "grey" and not (samples == 2 and any(extra)):
        extra = ()
    return Stored(
        samples,
        np.dtype(key.dtype),
        colours=colours,
        extra=extra,
        bits=int(key.bitspersample),
        white=_white(key, significant_bits),
        names=tuple(names),
        inverted=int(key.photometric) == MIN_IS_WHITE,
        palette=key.colormap,
        unread=unread,
        pages=pages,
    )


def _ycbcr(key: tifffile.TiffPage) -> tuple[Colours, str]:
    """Return what YCbCr is after decoding: JPEG is decoded to RGB, anything else is as it was stored."""
    if int(key.compression) in JPEG_IN_TIFFPAGE and key.planarconfig == 1 and key.samplesperpixel == 3:
        return "rgb", ""
    if int(key.compression) in DECODED_TO_RGB:
        return "rgb", ""
    jpeg = int(key.compression) in JPEG_IN_TIFFPAGE
    if not jpeg and tuple(_tag(key, SUBSAMPLING, (2, 2))) != (1, 1) and key.planarconfig == 1:
        raise SlideError(
            "Its colours are stored as YCbCr at half the resolution without JPEG (YCbCrSubSampling), which is not read "
            "here. Save it as RGB: tiffcp and ImageMagick do."
        )
    if key.bitspersample != 8:
        return "ycbcr", f"YCbCr of {key.bitspersample} bits"
    if not _is_default(key):
        return "ycbcr", "YCbCr with coefficients of its own"
    return "ycbcr", ""


def _is_default(key: tifffile.TiffPage) -> bool:
    """Tell whether YCbCr is that of JPEG: full range, luma of Rec. 601."""
    reference = _numbers(_tag(key, REFERENCE, (0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1)), 6)
    coefficients = _numbers(_tag(key, COEFFICIENTS, (299, 1000, 587, 1000, 114, 1000)), 3)
    return np.allclose(reference, (0, 255, 128, 255, 128, 255)) and np.allclose(
        coefficients, (0.299, 0.587, 0.114), atol=1e-3
    )


def _numbers(values: Sequence[float], count: int) -> list[float]:
    """Return numbers that a tag holds as fractions or as they are."""
    if len(values) == 2 * count:
        return [above / (below or math.nan) for above, below in zip(values[::2], values[1::2], strict=True)]
    return [float(value) for value in values]


def _extra(key: tifffile.TiffPage, colours: Colours, samples: int) -> tuple[int, ...]:
    """Return the meaning of every sample after the coloured ones; what is not said counts as unsaid."""
    count = samples - COLOUR_SAMPLES.get(colours, 1)
    said = tuple(int(each) for each in key.extrasamples)[-count:] if count > 0 else ()
    return (*said, *(0,) * (max(count, 0) - len(said)))


def _white(key: tifffile.TiffPage, significant_bits: int) -> float | None:
    """Return the largest value that the file allows; values that were merely counted in the picture are not that."""
    if significant_bits and np.dtype(key.dtype).kind == "u":
        return float(2**significant_bits - 1)
    value = _tag(key, S_MAX_SAMPLE, None) if np.dtype(key.dtype).kind == "f" else _tag(key, MAX_SAMPLE, None)
    values = [value] if isinstance(value, int | float) else list(value or ())
    if not values or len(set(values)) > 1 or not values[0] > 0:
        return None
    whole_bits = math.log2(values[0] + 1).is_integer()
    return float(values[0]) if whole_bits or np.dtype(key.dtype).kind == "f" else None


def _tag(key: tifffile.TiffPage, code: int, default: Any) -> Any:
    tag = key.tags.get(code)
    return default if tag is None else tag.value
