"""Pictures that fit in memory: an array, or a PNG, JPEG or BMP file, as a slide of one level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.formats import titles
from napari_kdseg.slides.readers.backend import Level, Metadata
from napari_kdseg.slides.readers.refusals import damaged
from napari_kdseg.slides.readers.tiff.jpeg import check_jpeg


class ArrayBackend:
    """Serve tiles of an array ``[h, w]`` or ``[h, w, channels]``."""

    def __init__(self, pixels: np.ndarray, reader: str = "numpy", icc: bytes | None = None):
        self._pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        height, width, channels = self._pixels.shape
        rgb = channels == 3 and pixels.dtype == np.uint8
        self.metadata = Metadata(
            reader=reader,
            reason="It is a plain picture, held in memory.",
            levels=(Level((height, width), (1.0, 1.0), (512, 512)),),
            channels=channels,
            dtype=pixels.dtype,
            channel_names=("red", "green", "blue")
            if rgb
            else tuple(f"channel {i + 1}" for i in range(channels)),
            brightfield=None if rgb else False,
            icc=icc,
        )

    def read_tile(self, level: int, row: int, column: int) -> np.ndarray:
        """Cut one tile out of the array."""
        height, width = self.metadata.levels[level].tile
        return self._pixels[row * height : (row + 1) * height, column * width : (column + 1) * width].copy()

    def read_associated(self, name: str) -> np.ndarray:
        """An array has none."""
        raise KeyError(name)

    def close(self) -> None:
        """Nothing is held open."""


def read_picture(path: Path) -> ArrayBackend:
    """Read an RGB or grey picture; a palette is applied, transparency is laid on white.

    Raises
    ------
    SlideError
        If it is not a picture, is damaged, or is too large to be held in memory.
    """
    image = open_picture(path)
    icc = image.info.get("icc_profile")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    elif image.mode not in ("L", "I;16", "I", "F"):
        image = image.convert("RGB")
    return ArrayBackend(np.asarray(image), "pillow", icc)


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
