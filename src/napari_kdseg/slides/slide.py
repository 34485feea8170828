"""A slide: levels of pixels, read lazily through a shared cache, placed in micrometres."""

from __future__ import annotations

import hashlib
import itertools
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.backend import Backend, Level, block_of, make_level
from napari_kdseg.slides.cache import TileCache, default_cache
from napari_kdseg.slides.geometry import Pair, as_pair
from napari_kdseg.slides.level_array import LevelArray
from napari_kdseg.slides.resample import halve, resample

COARSEST_SIDE = 2048
"""napari keeps the coarsest level in memory: slides without one this small are given further levels."""

MAX_COMPUTED_PIXELS = 2**30
"""Largest level those are computed from: its every tile has to be decoded once."""

DARK = 60
"""RGB slides whose median brightest channel is below this are fluorescence: H&E lies far above, on tissue too."""

GREY = 128
_owners = itertools.count()


class BadTile(NamedTuple):
    """A tile that could not be read."""

    level: int
    row: int
    column: int
    reason: str


class Slide:
    """A whole-slide image. Made by :func:`napari_kdseg.slides.open_slide`; may be used from many threads at once.

    Pixels outside the slide have the background colour; tiles that cannot be read are grey and listed in
    :attr:`bad_tiles`. A pickled slide is opened again where it is unpickled, so worker processes have handles of their own.

    Parameters
    ----------
    backend
        Reads the tiles.
    path
        Where the slide comes from: a path or a ``synthetic:`` address.
    mpp
        Micrometres per level-0 pixel, one number or (y, x), used instead of that of the file.
    cache
        For decoded tiles; by default the one all slides share.
    bad_value
        Value of the pixels of a tile that cannot be read.
    """

    def __init__(
        self,
        backend: Backend,
        path: str | Path,
        *,
        mpp: float | Pair | None = None,
        cache: TileCache | None = None,
        bad_value: int = GREY,
    ):
        self._backend = backend
        self.metadata = backend.metadata
        self.path = str(path)
        self.name = Path(self.path).name if not self.path.startswith("synthetic:") else self.path.partition("?")[0]
        self.levels = _with_small_levels(self.metadata.levels)
        self.bad_tiles: list[BadTile] = []
        self._bad_value = bad_value
        self._cache = default_cache() if cache is None else cache
        self._owner = next(_owners)
        self._mpp = self.metadata.mpp
        self._idle = threading.Condition()
        self._reading = 0
        self._closed = False
        if mpp is not None:
            self.mpp = mpp  # type: ignore[assignment]

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        from napari_kdseg.slides.opening import open_slide  # it makes slides: imported here to avoid a circle

        return partial(open_slide, mpp=self.mpp), (self.path,)

    def __repr__(self) -> str:
        height, width = self.shape
        return f"Slide({self.name!r}, {width} x {height} px, {len(self.levels)} levels, mpp={self.mpp})"

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels (height, width) of level 0."""
        return self.levels[0].shape

    @property
    def reader(self) -> str:
        """Name of the library that reads the file."""
        return self.metadata.reader

    @property
    def channels(self) -> int:
        """Number of channels of every pixel."""
        return self.metadata.channels

    @property
    def channel_names(self) -> tuple[str, ...]:
        """One name per channel."""
        return self.metadata.channel_names

    @property
    def dtype(self) -> np.dtype:
        """Type of the pixels."""
        return self.metadata.dtype

    @property
    def objective_power(self) -> float | None:
        """Magnification of the objective, a hint only."""
        return self.metadata.objective_power

    @property
    def icc(self) -> bytes | None:
        """ICC profile of the pixels."""
        return self.metadata.icc

    @property
    def properties(self) -> dict[str, str]:
        """Everything the file says of itself."""
        return self.metadata.properties

    @property
    def associated(self) -> tuple[str, ...]:
        """Names of the label, macro and other pictures."""
        return self.metadata.associated

    def read_associated(self, name: str) -> np.ndarray:
        """Read one of the associated pictures, uint8 ``[h, w, 3]``. A label may show the name of a patient."""
        if name not in self.associated:
            raise SlideError(f"This slide has no picture named {name!r}. It has: {', '.join(self.associated) or 'none'}.")
        with self._in_use():
            return self._backend.read_associated(name)

    @property
    def mpp(self) -> Pair | None:
        """Micrometres per level-0 pixel (y, x); ``None`` until a person gives it, if the file does not know it."""
        return self._mpp

    @mpp.setter
    def mpp(self, value: float | Pair | None) -> None:
        pair = None if value is None else as_pair(value)
        if pair is not None and not all(math.isfinite(side) and side > 0 for side in pair):
            raise SlideError(f"The size of a pixel must be a positive number of micrometres, not {value}.")
        self._mpp = pair

    @property
    def size_um(self) -> Pair | None:
        """Micrometres (height, width) of the slide, if it has a scale."""
        return None if self._mpp is None else (self.shape[0] * self._mpp[0], self.shape[1] * self._mpp[1])

    @cached_property
    def brightfield(self) -> bool:
        """Whether the slide is read as an H&E-like picture: RGB on a bright ground.

        A file that does not say so is judged by a few of its tiles: the median of the brightest channel of a
        fluorescence scan stored as RGB is nearly black.
        """
        if self.metadata.brightfield is not None:
            return self.metadata.brightfield
        if self.channels != 3 or self.dtype != np.uint8:
            return False
        tiles = [self._tile(*place).max(axis=2).ravel() for place in self._sample_places()]
        return bool(np.median(np.concatenate(tiles)) >= DARK)

    @cached_property
    def background(self) -> tuple[int, ...]:
        """Colour of what was not scanned, one value per channel: by default white, or black for fluorescence."""
        if self.metadata.background is not None:
            return self.metadata.background
        return (255 if self.brightfield else 0,) * self.channels

    def identity(self) -> str:
        """Hash of the content, for provenance.

        It is the quickhash of OpenSlide where there is one; otherwise BLAKE2 over the size of the file and samples of
        1 MB spread over it, so that terabytes take no longer than megabytes.
        """
        return self.metadata.fingerprint or _fingerprint(Path(self.path))

    def read(self, level: int, y: int, x: int, height: int, width: int) -> np.ndarray:
        """Read a region of a level.

        Parameters
        ----------
        level
            Index into :attr:`levels`.
        y, x, height, width
            The region, in pixels of that level. It may reach beyond the slide.

        Returns
        -------
        np.ndarray
            uint8 ``[height, width, 3]`` for brightfield, ``[height, width, channels]`` in :attr:`dtype` otherwise.
        """
        there = self.levels[level]
        (th, tw), (rows, columns) = there.tile, there.grid
        out = np.empty((height, width, self.channels), self.dtype)
        if y < 0 or x < 0 or y + height > there.shape[0] or x + width > there.shape[1]:
            out[:] = self.background
        for row in range(max(y // th, 0), min(math.ceil((y + height) / th), rows)):
            for column in range(max(x // tw, 0), min(math.ceil((x + width) / tw), columns)):
                tile = self._tile(level, row, column)
                top, left = row * th - y, column * tw - x
                y0, x0 = max(top, 0), max(left, 0)
                y1, x1 = min(top + tile.shape[0], height), min(left + tile.shape[1], width)
                out[y0:y1, x0:x1] = tile[y0 - top : y1 - top, x0 - left : x1 - left]
        return out

    def read_scaled(self, downsample: float | Pair, y: int, x: int, height: int, width: int) -> np.ndarray:
        """Read a region of an imaginary level of any downsample, from the nearest finer level.

        Parameters
        ----------
        downsample
            Width of one pixel in level-0 pixels, one number or (y, x); below 1 it magnifies.
        y, x, height, width
            The region, in pixels of the imaginary level.

        Returns
        -------
        np.ndarray
            As :meth:`read`; exactly so where a level has this downsample.
        """
        wanted = as_pair(downsample)
        if not all(math.isfinite(side) and side > 0 for side in wanted):
            raise SlideError(f"A downsample must be a positive number, not {downsample}.")
        if height <= 0 or width <= 0:
            return np.empty((max(height, 0), max(width, 0), self.channels), self.dtype)
        # A level that is coarser by less than 2 % is as good: 4.0 is read from a level of 4.0002, not from a finer one.
        index = max(
            (i for i, level in enumerate(self.levels) if all(f <= w * 1.02 for f, w in zip(level.downsample, wanted))),
            default=0,
        )
        there = self.levels[index].downsample
        ratio = (wanted[0] / there[0], wanted[1] / there[1])
        if max(abs(step - 1) * (abs(start) + side) for step, start, side in zip(ratio, (y, x), (height, width))) < 1e-3:
            return self.read(index, y, x, height, width)
        return resample(partial(self.read, index), ratio, y, x, height, width)

    def as_layers(self) -> list[LevelArray]:
        """Return all levels as arrays ``[h, w, channels]`` for a multiscale layer, the coarsest one small."""
        layers = []
        for index, level in enumerate(self.levels):
            chunks = (*block_of(level.tile), self.channels)
            layers.append(LevelArray(partial(self.read, index), (*level.shape, self.channels), self.dtype, chunks))
        return layers

    def check_readable(self) -> None:
        """Try a few tiles.

        Raises
        ------
        SlideError
            If none of them can be read: such a file would only be seen as grey.
        """
        places = self._sample_places()
        for place in places:
            self._tile(*place)
        if len(self.bad_tiles) == len(places):
            raise SlideError(
                f"This slide is truncated or damaged: none of its tiles can be read ({self.bad_tiles[0].reason}). "
                "Copy the file again from where it came from."
            )

    def close(self) -> None:
        """Wait for reads that are under way, then give the file and the memory back."""
        with self._idle:
            if self._closed:
                return
            self._closed = True
            self._idle.wait_for(lambda: self._reading == 0)
        self._backend.close()
        self._cache.drop(self._owner)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Hold the file open: native libraries do not survive being closed while they read."""
        with self._idle:
            if self._closed:
                raise SlideError(f"The slide {self.name} was closed. Open it again to read from it.")
            self._reading += 1
        try:
            yield
        finally:
            with self._idle:
                self._reading -= 1
                self._idle.notify_all()

    def _tile(self, level: int, row: int, column: int) -> np.ndarray:
        return self._cache.get(self._owner, (level, row, column), partial(self._load, level, row, column))

    def _load(self, level: int, row: int, column: int) -> np.ndarray:
        there = self.levels[level]
        height, width = there.tile_shape(row, column)
        if level >= len(self.metadata.levels):
            finer = self.levels[level - 1].shape
            top, left = 2 * row * there.tile[0], 2 * column * there.tile[1]
            return halve(self.read(level - 1, top, left, min(2 * height, finer[0] - top), min(2 * width, finer[1] - left)))
        with self._in_use():
            try:
                tile = self._backend.read_tile(level, row, column)
                if tile.shape != (height, width, self.channels):
                    raise ValueError(f"a tile of shape {tile.shape} where {(height, width, self.channels)} was expected")
            except MemoryError:
                raise
            except Exception as error:  # decoders raise anything on damaged data; the tile is shown grey and listed
                self._list_bad(BadTile(level, row, column, str(error) or type(error).__name__))
                return np.full((height, width, self.channels), self._bad_value, self.dtype)
        return np.ascontiguousarray(tile)

    def _list_bad(self, bad: BadTile) -> None:
        with self._idle:
            if all(known[:3] != bad[:3] for known in self.bad_tiles):
                self.bad_tiles.append(bad)

    def _sample_places(self) -> list[tuple[int, int, int]]:
        """Return up to nine tiles (level, row, column) spread over the coarsest level of the file."""
        level = len(self.metadata.levels) - 1
        rows, columns = self.levels[level].grid
        spread = [sorted({int((i + 0.5) / 3 * count) for i in range(3)}) for count in (rows, columns)]
        return [(level, row, column) for row in spread[0] for column in spread[1]]


def _with_small_levels(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    """Append levels of half the size, computed on demand, until the coarsest is small."""
    height, width = levels[-1].shape
    if max(height, width) > COARSEST_SIDE and height * width > MAX_COMPUTED_PIXELS:
        raise SlideError(
            f"The smallest level of this slide has {width} x {height} px, so an overview would take minutes to compute. "
            "Convert it to a pyramid first, for example with: vips tiffsave in.tif out.tif --tile --pyramid --bigtiff."
        )
    tile = block_of(levels[-1].tile)
    more = list(levels)
    while max(more[-1].shape) > COARSEST_SIDE:
        height, width = more[-1].shape
        more.append(make_level((math.ceil(height / 2), math.ceil(width / 2)), levels[0].shape, tile))
    return tuple(more)


def _fingerprint(path: Path, samples: int = 16, sample_bytes: int = 2**20) -> str:
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    digest = hashlib.blake2b(digest_size=20)
    if len(files) > samples:  # a zarr folder: the sizes of all chunks, and the content of the metadata and of a few
        for file in files:
            digest.update(f"{file.relative_to(path)} {file.stat().st_size}\n".encode())
        files = files[:: max(1, len(files) // samples)] + [file for file in files if file.suffix in (".json", "")][:samples]
    for file in files:
        size = file.stat().st_size
        digest.update(str(size).encode())
        count = min(samples, math.ceil(size / sample_bytes))
        with file.open("rb") as stream:
            for i in range(count):
                stream.seek(round(i * max(size - sample_bytes, 0) / max(count - 1, 1)))
                digest.update(stream.read(sample_bytes))
    return f"blake2:{digest.hexdigest()}"
