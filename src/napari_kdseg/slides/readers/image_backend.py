"""Pictures that fit in memory: an array, or a PNG, JPEG or BMP file, as a slide of one level."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
from PIL import ExifTags, Image

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.address import Asked
from napari_kdseg.slides.formats import titles
from napari_kdseg.slides.readers.backend import Level, Metadata
from napari_kdseg.slides.readers.meaning.deciding import decide
from napari_kdseg.slides.readers.meaning.stored import Colours, Stored
from napari_kdseg.slides.readers.refusals import damaged
from napari_kdseg.slides.readers.tiff.jpeg import check_jpeg
from napari_kdseg.slides.readers.wrapped import ORIENTATIONS, upright

ORIGINS = {"P": "a palette", "PA": "a palette", "CMYK": "CMYK", "LAB": "CIELab"}
"""Modes of Pillow that are made into RGB."""

PNG = b"\x89PNG\r\n\x1a\n"


class ArrayBackend:
    """Serve tiles of an array ``[h, w]`` or ``[h, w, channels]``.

    Parameters
    ----------
    pixels
        As they are stored.
    reader
        Name of the library that decoded them.
    icc
        ICC profile.
    stored
        What the file says of them; by default three channels of 8 bits are colours, any others are not.
    asked
        What a person says of them.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        reader: str = "numpy",
        icc: bytes | None = None,
        stored: Stored | None = None,
        asked: Asked | None = None,
    ):
        self._pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        height, width, samples = self._pixels.shape
        if stored is None:
            rgb = samples == 3 and pixels.dtype == np.uint8
            stored = Stored(samples, pixels.dtype, "rgb" if rgb else "grey")
        meaning = decide(stored, asked or Asked(), lambda: [self._pixels])
        self._convert = meaning.convert
        self.metadata = Metadata(
            reader=reader,
            reason="It is a plain picture, held in memory.",
            levels=(Level((height, width), (1.0, 1.0), (512, 512)),),
            icc=icc,
            **meaning.facts(),
        )

    def read_tile(self, level: int, row: int, column: int) -> np.ndarray:
        """Cut one tile out of the array."""
        height, width = self.metadata.levels[level].tile
        part = self._pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]
        return part.copy() if self._convert is None else self._convert(part)

    def read_associated(self, name: str) -> np.ndarray:
        """An array has none."""
        raise KeyError(name)

    def close(self) -> None:
        """Nothing is held open."""


def read_picture(path: Path, asked: Asked | None = None) -> ArrayBackend:
    """Read an RGB or grey picture, turned as its EXIF says; a palette is applied, transparency is laid on white.

    Raises
    ------
    SlideError
        If it is not a picture, is damaged, or is too large to be held in memory.
    """
    image = open_picture(path)
    icc = image.info.get("icc_profile")
    turn = orientation_of(image)
    raw = asked is not None and asked.kind == "channels" and image.mode != "1"
    pixels, stored = _deep_png(path) or (_as_stored(image) if raw else _plain(image))
    backend = ArrayBackend(upright(pixels, turn), "pillow", icc, stored, asked)
    about = backend.metadata
    if turn in ORIENTATIONS:
        about.orientation = f"turned upright, as its EXIF Orientation ({turn}) says"
    if about.kind == "rgb" and image.mode in ORIGINS:
        about.read_as = about.read_as.replace("RGB", f"RGB from {ORIGINS[image.mode]}", 1)
    if stored.depth > 8 and "transparency" in image.info:
        about.read_as += "; one value is said to be transparent, and is shown as it is stored"
    return backend


def _as_stored(image: Image.Image) -> tuple[np.ndarray, Stored]:
    """Return the numbers of a picture: indices of a palette, inks."""
    pixels = np.asarray(image)
    return pixels, Stored(pixels.shape[2] if pixels.ndim == 3 else 1, pixels.dtype, "other")


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF Orientation of a picture: 1 if it lies as it is stored."""
    return int(image.getexif().get(ExifTags.Base.Orientation, 1))


def _plain(image: Image.Image) -> tuple[np.ndarray, Stored]:
    """Return what Pillow makes of a picture: grey, or RGB with its transparency beside."""
    deep = image.mode in ("I;16", "I;16B", "I", "F")
    colours: Colours = "grey" if image.mode in ("1", "L", "LA") or deep else "rgb"
    opacity = image.mode in ("RGBA", "LA", "PA") or ("transparency" in image.info and not deep)
    if not deep:
        image = image.convert(("L" if colours == "grey" else "RGB") + ("A" if opacity else ""))
    pixels = np.asarray(image)
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    return pixels, Stored(samples, pixels.dtype, colours, extra=(2,) if opacity else ())


def _deep_png(path: Path) -> tuple[np.ndarray, Stored] | None:
    """Decode a PNG of several samples of 16 bits, of which Pillow keeps 8; PNG says that 65535 is white."""
    with path.open("rb") as stream:
        start = stream.read(26)
    if start[:8] != PNG or start[24] != 16 or start[25] not in (2, 4, 6):
        return None
    pixels = imagecodecs.png_decode(path.read_bytes())
    samples = pixels.shape[2]
    colours: Colours = "rgb" if samples >= 3 else "grey"
    extra = (2,) if samples in (2, 4) else ()
    return pixels, Stored(samples, pixels.dtype, colours, extra=extra, white=65535)


def open_picture(path: Path) -> Image.Image:
    """Open and decode a picture with Pillow.

    Raises
    ------
    SlideError
        As :func:`read_picture`.
    """
    try:
        image = Image.open(path, formats=titles("picture"))
    except Image.DecompressionBombError as error:
        raise SlideError(
            f"{path.name} is too large for a plain picture. Convert it to a pyramidal TIFF."
        ) from error
    except (Image.UnidentifiedImageError, OSError, ValueError) as error:
        raise SlideError(
            f"{path.name} is not a slide in a format that is known here: {', '.join(titles())}."
        ) from error
    try:
        image.load()
        if image.format == "JPEG":
            check_jpeg(path.read_bytes())
    except Exception as error:  # decoders raise anything on damaged data
        raise damaged(path, "its pixels cannot be decoded") from error
    return image
