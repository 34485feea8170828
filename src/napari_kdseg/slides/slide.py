"""A slide: levels of pixels, read lazily through a shared cache, placed in micrometres."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.address import Asked, split_address
from napari_kdseg.slides.fingerprint import fingerprint
from napari_kdseg.slides.geometry import Pair, as_pair
from napari_kdseg.slides.pixels.cache import TileCache, default_cache
from napari_kdseg.slides.pixels.level_array import LevelArray
from napari_kdseg.slides.pixels.mapped import MappedBackend
from napari_kdseg.slides.pixels.progressive import PATIENCE, ArrivalSignal, Progressive
from napari_kdseg.slides.pixels.resample import nearest_finer, resample
from napari_kdseg.slides.pixels.tiles import BadTile, Tiles
from napari_kdseg.slides.readers.backend import Backend, block_of
from napari_kdseg.slides.readers.meaning.deciding import is_bright
from napari_kdseg.slides.scale import PLAUSIBLE_MPP, doubt, is_plausible
from napari_kdseg.synthetic.address import is_address

GREY = 128

LAYER_BLOCK = 256
"""Side in pixels that the chunks of a layer are brought near to: napari rounds every view outward to whole ones."""


class Slide:
    """A whole-slide image. Made by :func:`napari_kdseg.slides.open_slide`; may be used from many threads at once.

    Pixels outside the slide have the background colour; tiles that cannot be read are grey and listed in
    :attr:`bad_tiles`. A pickled slide is opened again where it is unpickled, so worker processes have handles of
    their own.

    Parameters
    ----------
    backend
        Reads the tiles.
    path
        Where the slide comes from: a path, with what is asked of the file (:mod:`.address`), or a ``synthetic:``
        address.
    name
        For people; by default that of the file.
    mpp
        Micrometres per level-0 pixel, one number or (y, x), used instead of that of the file.
    cache
        For decoded tiles; by default the one all slides share.
    bad_value
        Value of the pixels of a tile that cannot be read.
    threads
        That decode the tiles of one region; by default as many as :func:`set_decode_threads` says.
    reopen
        ``reopen(path, mpp=...)`` opens the slide where it is unpickled; a slide without it is not pickled.
    asked
        What a person said of the file, as far as the backend was opened with it.
    """

    def __init__(
        self,
        backend: Backend,
        path: str | Path,
        *,
        name: str | None = None,
        mpp: float | Pair | None = None,
        cache: TileCache | None = None,
        bad_value: int = GREY,
        threads: int | None = None,
        reopen: Callable[..., Slide] | None = None,
        asked: Asked | None = None,
    ):
        self._backend = backend
        self.metadata = backend.metadata
        self.path = str(path)
        self.name = Path(self.path).name if name is None else name
        self._reopen = reopen
        self.asked = asked or Asked()
        self._cache = default_cache() if cache is None else cache
        self._tiles = Tiles(backend, self._cache, bad_value, threads)
        self._progressive = Progressive(self._tiles)
        self._views: list[Slide] = []
        self.levels = self._tiles.levels
        said = self.metadata.mpp
        self._mpp = said if said is None or is_plausible(said) else None
        if mpp is not None:
            self.mpp = mpp  # type: ignore[assignment]

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._reopen is None:
            raise TypeError(
                "only a slide from open_slide is pickled; of a mapped view, pickle the slide and map it again"
            )
        return partial(self._reopen, mpp=self.mpp), (self.path,)

    def __repr__(self) -> str:
        height, width = self.shape
        return f"Slide({self.name!r}, {width} x {height} px, {len(self.levels)} levels, mpp={self.mpp})"

    @property
    def file(self) -> Path:
        """The file or folder, without what is asked of it."""
        return Path(self.path) if is_address(self.path) else split_address(self.path)[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels (height, width) of level 0."""
        return self.levels[0].shape

    @property
    def bad_tiles(self) -> list[BadTile]:
        """Tiles that could not be read so far, each listed once."""
        return list(self._tiles.bad)

    def on_bad_tile(self, callback: Callable[[BadTile], None]) -> None:
        """Call ``callback``, from the thread that reads, once for every tile that turns out to be damaged."""
        self._tiles.on_bad.append(callback)

    @property
    def reader(self) -> str:
        """Name of the library that reads the pixels."""
        return self.metadata.reader

    @property
    def reader_reason(self) -> str:
        """Why it is that reader, in a sentence."""
        return self.metadata.reason

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
    def bounds(self) -> tuple[int, int, int, int] | None:
        """Part of level 0 that was scanned, (y, x, height, width); ``None``: all, or the file does not say."""
        return self.metadata.bounds

    @property
    def plane(self) -> str:
        """Which of several planes is read, in words; empty where there is only one."""
        return self.metadata.plane

    @property
    def associated(self) -> tuple[str, ...]:
        """Names of the label, macro and other pictures."""
        return self.metadata.associated

    def read_associated(self, name: str) -> np.ndarray:
        """Read one of the associated pictures, uint8 ``[h, w, 3]``. A label may show the name of a patient."""
        if name not in self.associated:
            raise SlideError(
                f"This slide has no picture named {name!r}. It has: {', '.join(self.associated) or 'none'}."
            )
        with self._tiles.in_use():
            return self._backend.read_associated(name)

    @property
    def mpp(self) -> Pair | None:
        """Micrometres per level-0 pixel (y, x); ``None`` until a person gives it, if the file does not know it.

        What no slide has (:data:`.PLAUSIBLE_MPP`) counts as not known, see :attr:`scale_doubt`.
        """
        return self._mpp

    @mpp.setter
    def mpp(self, value: float | Pair | None) -> None:
        pair = None if value is None else as_pair(value)
        if pair is not None and not all(math.isfinite(side) and side > 0 for side in pair):
            raise SlideError(f"The size of a pixel must be a positive number of micrometres, not {value}.")
        if pair is not None and not is_plausible(pair):
            raise SlideError(
                f"A pixel of a slide is {PLAUSIBLE_MPP[0]:g} to {PLAUSIBLE_MPP[1]:g} µm wide, not {pair[1]:g}. Give it "
                "in micrometres: 499 nm are 0.499."
            )
        self._mpp = pair

    @property
    def scale_doubt(self) -> str:
        """Why the scale that the file gives is not believed; empty if it is, or if there is none."""
        said = self.metadata.mpp
        return "" if said is None or is_plausible(said) else doubt(said)

    @property
    def size_um(self) -> Pair | None:
        """Micrometres (height, width) of the slide, if it has a scale."""
        return None if self._mpp is None else (self.shape[0] * self._mpp[0], self.shape[1] * self._mpp[1])

    @cached_property
    def brightfield(self) -> bool:
        """Whether the slide is read as an H&E-like picture: RGB on a bright ground.

        A file that does not say so is judged by a few of its tiles (:func:`~.deciding.is_bright`).
        """
        if self.metadata.brightfield is not None:
            return self.metadata.brightfield
        if self.channels != 3 or self.dtype != np.uint8:
            return False
        return is_bright(self._tiles.samples())

    @property
    def read_as(self) -> str:
        """What its numbers were taken for, and why, in a line."""
        if self.metadata.brightfield is None and not self.brightfield:
            return (
                f"{self.metadata.read_as}; on a dark ground, so its 3 channels are shown as of fluorescence"
            )
        return self.metadata.read_as

    def check_decided(self) -> None:
        """See that it is known what its numbers mean, before they are used for more than to be looked at.

        Raises
        ------
        SlideError
            If a person has to say it first.
        """
        if self.metadata.doubt:
            raise SlideError(
                f"The pixels of {self.name} cannot be used yet: {self.metadata.doubt}. {self.mend}"
            )

    @property
    def mend(self) -> str:
        """How a person says what is not known of the numbers; empty if nothing has to be said."""
        if not self.metadata.doubt:
            return ""
        white = self.metadata.white
        option = "--as channels" if white is None else f"--white {white:g}"
        what = "To use the numbers as they are stored, say so" if white is None else "Say it"
        address = option.removeprefix("--").replace(" ", "=")
        return (
            f"{what} with kdseg info SLIDE {option}, with ?{address} behind its name, or in the Slide dock."
        )

    @cached_property
    def background(self) -> tuple[int, ...]:
        """Colour of what was not scanned, one value per channel: by default white, or black for fluorescence."""
        if self.metadata.background is not None:
            return self.metadata.background
        return (255 if self.brightfield else 0,) * self.channels

    def identity(self) -> str:
        """Hash of the content, for provenance.

        It is the quickhash of OpenSlide where there is one; otherwise BLAKE2 over the size of the file and samples of
        1 MB spread over it, so that terabytes take no longer than megabytes. A picture of a file that is not its slide
        by itself, but was chosen by a person, has the number of its series behind it.
        """
        return self._identity

    @cached_property
    def _identity(self) -> str:
        found = self.metadata.fingerprint or fingerprint(self.file)
        return f"{found}#{self.metadata.series + 1}" if self.is_chosen_series else found

    @property
    def is_chosen_series(self) -> bool:
        """Whether a person chose another picture of the file than the one that is the slide by itself."""
        return self.metadata.series != self.metadata.default_series

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
        return self._tiles.read(level, y, x, height, width, lambda: self.background)

    def tile(self, level: int, row: int, column: int) -> np.ndarray:
        """Return one tile of a level, read-only; those at the right and lower edge are smaller."""
        return self._tiles.tile(level, row, column)

    def read_now(
        self, level: int, y: int, x: int, height: int, width: int, patience: float = PATIENCE
    ) -> np.ndarray:
        """Read a region as :meth:`read`, but wait no longer than ``patience`` seconds for tiles to be decoded.

        What is not there by then is shown from a coarser level; :attr:`arrivals` tells when to ask again.
        """
        return self._progressive.read(level, y, x, height, width, lambda: self.background, patience)

    @property
    def arrivals(self) -> ArrivalSignal:
        """Tells, from a decode thread, that what :meth:`read_now` gave coarsely can be had better now."""
        return self._progressive.arrivals

    @property
    def waiting(self) -> int:
        """Number of tiles that :meth:`read_now` still waits for."""
        return self._progressive.waiting

    def prepare(self) -> None:
        """Decode the coarsest level and find out the background, for a window. Takes a moment: not for its thread."""
        self._progressive.prepare()
        _ = self.background

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
        index = nearest_finer(self.levels, wanted)
        there = self.levels[index].downsample
        ratio = (wanted[0] / there[0], wanted[1] / there[1])
        return resample(partial(self.read, index), ratio, y, x, height, width)

    def as_layers(self, patience: float | None = None) -> list[LevelArray]:
        """Return all levels as arrays ``[h, w, channels]`` for a multiscale layer, the coarsest one small.

        Parameters
        ----------
        patience
            ``None`` to wait for every pixel. For a window, the seconds that a view may wait for its tiles
            (:data:`PATIENCE`): what is not decoded by then is shown coarsely, see :meth:`read_now`.
        """
        layers = []
        for index, level in enumerate(self.levels):
            read = (
                partial(self.read, index) if patience is None else partial(self._read_within, patience, index)
            )
            chunks = (*block_of(level.tile, LAYER_BLOCK), self.channels)
            layers.append(LevelArray(read, (*level.shape, self.channels), self.dtype, chunks))
        return layers

    def mapped(
        self,
        function: Callable[[np.ndarray], np.ndarray],
        *,
        name: str,
        channels: int | None = None,
        dtype: Any = None,
        channel_names: tuple[str, ...] | None = None,
    ) -> Slide:
        """Return the same slide with every pixel put through a function, for example into other colours.

        It is computed tile by tile where it is looked at, in the decode threads, and kept in the same cache. Closing
        this slide closes it too.

        Parameters
        ----------
        function
            ``function(pixels [h, w, channels]) -> [h, w, new channels]``; each pixel on its own, from many threads.
        name
            Of the new view.
        channels, dtype, channel_names
            Of its result, where they differ.
        """
        known = replace(
            self.metadata, levels=self.levels, background=self.background, brightfield=self.brightfield
        )
        backend = MappedBackend(known, self.tile, function, channels, dtype, channel_names)
        view = Slide(backend, self.path, name=name, mpp=self.mpp, cache=self._cache)
        self._views.append(view)
        return view

    def _read_within(
        self, patience: float, level: int, y: int, x: int, height: int, width: int
    ) -> np.ndarray:
        return self.read_now(level, y, x, height, width, patience)

    def check_readable(self) -> None:
        """Try a few tiles.

        Raises
        ------
        SlideError
            If none of them can be read: such a file would only be seen as grey.
        """
        if len(self._tiles.samples()) == len(self.bad_tiles):
            raise SlideError(
                f"This slide is truncated or damaged: none of its tiles can be read ({self.bad_tiles[0].reason}). "
                "Copy the file again from where it came from."
            )

    def close(self) -> None:
        """Wait for reads that are under way, then give the file and the memory back."""
        for view in self._views:
            view.close()
        self._progressive.close()
        self._tiles.close()
