"""Slides read otherwise than they are stored: turned by their orientation, or with other numbers, as a person said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from napari_kdseg.slides.readers.backend import Backend, make_level
from napari_kdseg.slides.readers.meaning.deciding import Meaning

#: Orientation of TIFF and EXIF -> (swap rows and columns, turn rows round, turn columns round), in this order.
ORIENTATIONS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
BLOCK = 512


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn ``[h, w, ...]`` as an orientation tag says; 1 and unknown ones leave it."""
    swap, rows, columns = ORIENTATIONS.get(orientation, (False, False, False))
    if swap:
        pixels = np.swapaxes(pixels, 0, 1)
    return pixels[:: -1 if rows else 1, :: -1 if columns else 1]


class UprightBackend:
    """A slide whose orientation tag says that it lies otherwise than it is stored.

    A tile of it is put together from up to four of those stored.
    """

    def __init__(self, backend: Backend, orientation: int):
        self._backend, self._orientation = backend, orientation
        self._swap = ORIENTATIONS[orientation][0]
        known = backend.metadata
        shapes = [level.shape[::-1] if self._swap else level.shape for level in known.levels]
        mpp = known.mpp[::-1] if known.mpp is not None and self._swap else known.mpp
        self.metadata = replace(
            known,
            levels=tuple(make_level(shape, shapes[0], (BLOCK, BLOCK)) for shape in shapes),
            mpp=mpp,
            orientation=f"turned upright, as its tag Orientation ({orientation}) says",
        )

    def read_tile(self, level: int, row: int, column: int) -> np.ndarray:
        """Read one tile, turned."""
        there = self.metadata.levels[level]
        height, width = there.tile_shape(row, column)
        spans = [(row * BLOCK, height, there.shape[0]), (column * BLOCK, width, there.shape[1])]
        _, *turned = ORIENTATIONS[self._orientation]
        (top, height), (left, width) = (
            (side - start - length if back else start, length)
            for (start, length, side), back in zip(spans, turned, strict=True)
        )
        box = (left, top, width, height) if self._swap else (top, left, height, width)
        return np.ascontiguousarray(upright(self._stored(level, *box), self._orientation))

    def read_associated(self, name: str) -> np.ndarray:
        """Read another picture of the file, as it is stored."""
        return self._backend.read_associated(name)

    def close(self) -> None:
        """Close the file."""
        self._backend.close()

    def _stored(self, level: int, top: int, left: int, height: int, width: int) -> np.ndarray:
        there, known = self._backend.metadata.levels[level], self._backend.metadata
        (th, tw), out = there.tile, np.empty((height, width, known.channels), known.dtype)
        for row in range(top // th, -(-(top + height) // th)):
            for column in range(left // tw, -(-(left + width) // tw)):
                tile = self._backend.read_tile(level, row, column)
                y, x = row * th - top, column * tw - left
                part = tile[max(-y, 0) : height - y, max(-x, 0) : width - x]
                out[max(y, 0) : max(y, 0) + len(part), max(x, 0) : max(x, 0) + part.shape[1]] = part
        return out


class ReadAsBackend:
    """A slide that its reader gives in RGB, read otherwise because a person said so."""

    def __init__(self, backend: Backend, meaning: Meaning):
        self._backend, self._meaning = backend, meaning
        self.metadata = replace(backend.metadata, **meaning.facts())
        ground = backend.metadata.background
        if ground is not None and meaning.convert is not None:
            pixel = np.array(ground, backend.metadata.dtype).reshape(1, 1, -1)
            self.metadata.background = tuple(meaning.convert(pixel)[0, 0].tolist())

    def read_tile(self, level: int, row: int, column: int) -> np.ndarray:
        """Read one tile."""
        tile = self._backend.read_tile(level, row, column)
        return tile if self._meaning.convert is None else self._meaning.convert(tile)

    def read_associated(self, name: str) -> np.ndarray:
        """Read the label, macro or thumbnail as it is."""
        return self._backend.read_associated(name)

    def close(self) -> None:
        """Close the file."""
        self._backend.close()
