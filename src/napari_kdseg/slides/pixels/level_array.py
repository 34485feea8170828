"""One level of a slide or a mask as an array that napari slices: pixels are read only where it is looked at.

napari asks for ``shape dtype ndim size chunks __getitem__ __array__``; with ``chunks`` it rounds the view outward to
whole blocks and reads nothing while the view stays inside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from napari_kdseg.errors import SlideError

MAX_BYTES = 2 * 2**30
ReadRegion = Callable[[int, int, int, int], np.ndarray]


class LevelArray:
    """A read-only array ``[height, width]`` or ``[height, width, channels]`` over a function that reads regions.

    Indexing takes integers, slices of any step and an ellipsis, and returns numpy arrays like numpy does, with one
    exception: one channel of the whole level (``array[:, :, 1]``) stays lazy, so napari can split channels.

    Parameters
    ----------
    read
        ``read(y, x, height, width)`` gives the pixels of a region that lies inside the level.
    shape, dtype
        Of the whole level.
    chunks
        Block that is read at once, along every axis.
    """

    def __init__(self, read: ReadRegion, shape: tuple[int, ...], dtype: Any, chunks: tuple[int, ...]):
        self._read = read
        self.shape = tuple(int(side) for side in shape)
        self.dtype = np.dtype(dtype)
        self.chunks = tuple(min(int(chunk), side) for chunk, side in zip(chunks, self.shape, strict=True))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the whole level would take."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"LevelArray(shape={self.shape}, dtype={self.dtype}, chunks={self.chunks})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError(
                "the pixels of a slide cannot be had without reading them: copy=False is impossible"
            )
        pixels = self._region(0, 0, *self.shape[:2])
        return pixels if dtype is None else pixels.astype(dtype, copy=False)

    def __getitem__(self, key: Any) -> Any:
        keys = self._complete(key)
        if self.ndim == 3 and isinstance(keys[2], int) and keys[:2] == (slice(None), slice(None)):
            return self.channel(keys[2])
        spans, after = zip(
            *(_span(item, side) for item, side in zip(keys[:2], self.shape, strict=False)), strict=True
        )
        (top, bottom), (left, right) = spans
        pixels = self._region(top, left, bottom - top, right - left)
        return pixels[(*after, *keys[2:])]

    def channel(self, index: int) -> LevelArray:
        """Return one channel of the whole level, read lazily too."""
        if not -self.shape[2] <= index < self.shape[2]:
            raise IndexError(f"channel {index} is out of bounds for {self.shape[2]} channels")
        return LevelArray(
            lambda *box: self._region(*box)[..., index], self.shape[:2], self.dtype, self.chunks[:2]
        )

    def _complete(self, key: Any) -> tuple[Any, ...]:
        """Return one integer or slice per axis."""
        keys = key if isinstance(key, tuple) else (key,)
        if (
            sum(item is Ellipsis for item in keys) > 1
            or len([item for item in keys if item is not Ellipsis]) > self.ndim
        ):
            raise IndexError(f"too many indices for an array of {self.ndim} axes: {key!r}")
        if Ellipsis in keys:
            position = keys.index(Ellipsis)
            missing = self.ndim - len(keys) + 1
            keys = (*keys[:position], *(slice(None),) * missing, *keys[position + 1 :])
        keys = (*keys, *(slice(None),) * (self.ndim - len(keys)))
        return tuple(_plain(item) for item in keys)

    def _region(self, y: int, x: int, height: int, width: int) -> np.ndarray:
        needed = height * width * math.prod(self.shape[2:]) * self.dtype.itemsize
        if needed > MAX_BYTES:
            raise SlideError(
                f"{height} x {width} px of this level would take {needed / 2**30:.1f} GB of memory at once. "
                "Read a smaller region, or a coarser level."
            )
        if height <= 0 or width <= 0:
            return np.empty((max(height, 0), max(width, 0), *self.shape[2:]), self.dtype)
        return self._read(y, x, height, width)


def _plain(item: Any) -> int | slice:
    """Turn numpy integers, also those inside a slice, into Python's."""
    if isinstance(item, slice):
        return slice(*(None if value is None else int(value) for value in (item.start, item.stop, item.step)))
    if isinstance(item, int | np.integer) and not isinstance(item, bool):
        return int(item)
    raise IndexError(f"a level takes integers and slices, not {type(item).__name__}")


def _span(item: int | slice, side: int) -> tuple[tuple[int, int], int | slice]:
    """Split an index into the stretch of pixels to read and the index to apply to what was read."""
    if isinstance(item, int):
        if not -side <= item < side:
            raise IndexError(f"index {item} is out of bounds for {side} px")
        return (item % side, item % side + 1), 0
    positions = range(*item.indices(side))
    if not positions:
        return (0, 0), slice(0, 0)
    low, high = min(positions[0], positions[-1]), max(positions[0], positions[-1])
    step = slice(None, None, positions.step)  # backwards, the stretch ends exactly at the first position
    return (low, high + 1), step
