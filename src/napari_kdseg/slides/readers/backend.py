"""What a slide format has to offer: a description of the slide and its tiles, behind one small protocol.

The idea of one small class per reader is that of napari-wsi; here its heart is ``read_tile``, so that every format
shares one cache, one way to cut regions out of tiles and one way to live with damaged ones.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from napari_kdseg.slides.address import Kind
from napari_kdseg.slides.geometry import Pair

BLOCK = 512
"""Side in pixels that blocks of native tiles are brought near to: small enough to be quick, large enough to be few."""


@dataclass(frozen=True)
class Level:
    """One resolution of a slide.

    Attributes
    ----------
    shape
        Pixels (height, width).
    downsample
        Exact width of one of its pixels in level-0 pixels, (y, x): level-0 size divided by the size of this level.
    tile
        Pixels (height, width) of the tiles it is read by; those at the right and lower edge may be smaller.
    """

    shape: tuple[int, int]
    downsample: Pair
    tile: tuple[int, int]

    @property
    def grid(self) -> tuple[int, int]:
        """Number of tiles (rows, columns)."""
        return math.ceil(self.shape[0] / self.tile[0]), math.ceil(self.shape[1] / self.tile[1])

    def tile_shape(self, row: int, column: int) -> tuple[int, int]:
        """Pixels (height, width) of one tile, cut to the level."""
        height = min(self.tile[0], self.shape[0] - row * self.tile[0])
        return height, min(self.tile[1], self.shape[1] - column * self.tile[1])

    def spread(self) -> list[tuple[int, int]]:
        """Return the (row, column) of up to nine tiles spread over it."""
        rows, columns = (sorted({int((i + 0.5) / 3 * count) for i in range(3)}) for count in self.grid)
        return [(row, column) for row in rows for column in columns]


def make_level(shape: tuple[int, int], level0: tuple[int, int], tile: tuple[int, int]) -> Level:
    """Describe a level by its size and that of level 0."""
    return Level(shape, (level0[0] / shape[0], level0[1] / shape[1]), tile)


def block_of(native: tuple[int, int], size: int = BLOCK) -> tuple[int, int]:
    """Return the multiple of a native tile (height, width) that comes nearest to ``size`` on each side."""
    height, width = (side * max(1, round(size / side)) for side in native)
    return height, width


@dataclass
class Metadata:
    """What a file says about its slide. Nothing here is guessed.

    Attributes
    ----------
    reader
        Name of the library that reads its pixels.
    reason
        Why it is that one, in a sentence.
    compression
        How the pixels of level 0 are stored, if that is known.
    levels
        From fine to coarse.
    channels, dtype
        Of every pixel: 3 and uint8 for RGB.
    mpp
        Micrometres per level-0 pixel (y, x), if the file knows.
    background
        Colour of what was not scanned, one value per channel; ``None`` if the file does not say.
    brightfield
        Whether light falls through the tissue (H&E) rather than comes out of it; ``None`` if only the pixels can tell.
    icc
        ICC profile, if there is one. It is for display; nothing is converted silently.
    associated
        Names of the label, macro and other pictures. A label may show the name of a patient.
    bounds
        Part of level 0 that was scanned, (y, x, height, width) in its pixels, if the file says so (MRXS does).
    fingerprint
        Identity of the content, where the reader computes one itself.
    plane
        Which of several planes is read, in words (:func:`plane_in_words`); empty where there is only one.
    pictures, series, default_series
        Titles of the pictures in the file, the index of the one that is read, and of the one that is by default.
    picture
        Which of them is the slide and why, in words (:mod:`.pictures`); empty where there is only one.
    kind, read_as, doubt, white
        What the numbers are taken for (:class:`~napari_kdseg.slides.readers.meaning.deciding.Meaning`).
    orientation
        How the slide was turned, in words.
    """

    reader: str
    levels: tuple[Level, ...]
    reason: str = ""
    compression: str = ""
    channels: int = 3
    dtype: np.dtype = field(default_factory=lambda: np.dtype(np.uint8))
    channel_names: tuple[str, ...] = ("red", "green", "blue")
    mpp: Pair | None = None
    objective_power: float | None = None
    background: tuple[int, ...] | None = None
    brightfield: bool | None = None
    icc: bytes | None = None
    properties: dict[str, str] = field(default_factory=dict)
    associated: tuple[str, ...] = ()
    fingerprint: str | None = None
    bounds: tuple[int, int, int, int] | None = None
    plane: str = ""
    pictures: tuple[str, ...] = ()
    series: int = 0
    default_series: int = 0
    picture: str = ""
    kind: Kind = "rgb"
    read_as: str = "RGB, 8 bit"
    doubt: str = ""
    white: float | None = None
    orientation: str = ""


PLANE_AXES = {"z": "focus plane", "t": "time point", "c": "channel"}


def plane_in_words(sizes: dict[str, int]) -> str:
    """Say which plane is read of a file that has several, by the sizes of its further axes.

    Readers take the first position of every axis but y, x and channels.
    """
    many = [
        (PLANE_AXES.get(axis.lower(), f"{axis} position"), size) for axis, size in sizes.items() if size > 1
    ]
    return ", ".join(f"{name} 1 of {size}" for name, size in many)


def sampled(
    read: Callable[[int, int, int], np.ndarray], levels: Sequence[Level]
) -> Callable[[], list[np.ndarray]]:
    """Return a function that reads tiles spread over the coarsest level, leaving out those that are damaged."""

    def look() -> list[np.ndarray]:
        found = []
        for row, column in levels[-1].spread():
            with contextlib.suppress(Exception):  # whether any can be read is said where the slide is opened
                found.append(read(len(levels) - 1, row, column))
        return found

    return look


class Backend(Protocol):
    """A slide in one format. ``read_tile`` is called from many threads at once."""

    metadata: Metadata

    def read_tile(self, level: int, row: int, column: int) -> np.ndarray:
        """Decode one tile: ``[<= tile height, <= tile width, channels]``; any exception means the tile is damaged."""
        ...

    def read_associated(self, name: str) -> np.ndarray:
        """Decode one of the associated pictures, uint8 ``[h, w, 3]``."""
        ...

    def close(self) -> None:
        """Give the file back; no tile is being read."""
        ...
