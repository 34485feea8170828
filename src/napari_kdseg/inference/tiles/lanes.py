"""One network on its way over the slide: which windows it needs next, and what becomes of what it says of them."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from napari_kdseg.inference.network.engine import Engine
from napari_kdseg.inference.tiles.blending import Blender
from napari_kdseg.inference.tiles.tile_queue import Region, TileQueue
from napari_kdseg.masks.tiling import GridIndex, GridTile

#: A tile, its classes uint8 ``[h, w]`` and, where asked for, their probability float32 ``[h, w]``.
Finished = tuple[GridTile, np.ndarray, np.ndarray | None]
#: Tiles without tissue that are written at once.
BLANKS = 64


@dataclass
class Work:
    """Something to do for a lane: windows to predict, and tiles that are background without being seen."""

    lane: Lane
    windows: list[GridTile] = field(default_factory=list)
    blanks: list[GridTile] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do but to wait for what is under way."""
        return not self.windows and not self.blanks


class Lane(ABC):
    """What the loop knows of a network on its way.

    Parameters
    ----------
    name
        Of the mask.
    engine
        Runs the network.
    queue
        The tiles to do.
    is_background
        Tells which of them need not be seen.
    batch_size
        Windows at once.
    probability
        Whether the probability of the predicted class is wanted.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        queue: TileQueue,
        is_background: Callable[[GridTile], bool],
        batch_size: int,
        *,
        probability: bool,
    ):
        self.name = name
        self.engine = engine
        self.batch_size = batch_size
        self._queue = queue
        self._is_background = is_background
        self._probability = probability
        self._total = max(len(queue), 1)

    @property
    def share(self) -> float:
        """How much of its tiles it has taken up, 0..1."""
        return 1 - len(self._queue) / self._total

    @property
    def waiting(self) -> list[GridTile]:
        """The tiles that it has not taken up yet."""
        return self._queue.waiting

    def look_at(self, view: Region | None) -> None:
        """Prefer what lies in ``view`` (level-0 pixels) from now on."""
        self._queue.look_at(view)

    @abstractmethod
    def next_work(self) -> Work | None:
        """Take up the next tiles; ``None`` when nothing is left."""

    @abstractmethod
    def submit(self, work: Work, batch: Tensor | None) -> Callable[[], Iterator[Finished]]:
        """Begin to predict a batch; the callable waits for the tiles that it finishes."""

    def _take(self, blanks: list[GridTile]) -> GridTile | None:
        """Take the next tile with tissue; those without, on the way there, are put into ``blanks``."""
        while len(self._queue) and len(blanks) < BLANKS:
            tile = self._queue.pop()
            if not self._is_background(tile):
                return tile
            blanks.append(tile)
        return None


class CroppingLane(Lane):
    """Each tile comes from its own window, of which the halo is cropped away."""

    def next_work(self) -> Work | None:
        """Take up as many tiles as a batch holds."""
        work = Work(self)
        while len(work.windows) < self.batch_size:
            tile = self._take(work.blanks)
            if tile is None:
                break
            work.windows.append(tile)
        return None if work.is_empty else work

    def submit(self, work: Work, batch: Tensor | None) -> Callable[[], Iterator[Finished]]:
        """Begin to predict a batch: every window finishes its tile."""
        if batch is None:
            return lambda: iter(())
        halo = work.windows[0].y - work.windows[0].window[0]
        valid = slice(halo, batch.shape[1] - halo)
        wait = self.engine.classify(batch, (valid, valid), probability=self._probability)

        def finished() -> Iterator[Finished]:
            classes, chance = wait()
            for index, tile in enumerate(work.windows):
                inside = (index, slice(tile.height), slice(tile.width))
                yield tile, classes[inside], None if chance is None else chance[inside]

        return finished


class BlendingLane(Lane):
    """Each tile is blended from its own window and those of its neighbours."""

    def __init__(self, *arguments: Any, blender: Blender, **options: Any):
        super().__init__(*arguments, **options)
        self._blender = blender
        self._requested: deque[GridTile] = deque()
        self._under_way: set[GridIndex] = set()
        self._unfinished: deque[GridTile] = deque()
        self._lock = threading.RLock()

    def next_work(self) -> Work | None:
        """Take up tiles until a batch of windows is missing; empty work while windows are still under way."""
        work = Work(self)
        with self._lock:
            while len(self._requested) < self.batch_size:
                tile = self._take(work.blanks)
                if tile is None:
                    break
                self._unfinished.append(tile)
                self._request_windows(tile)
            while self._requested and len(work.windows) < self.batch_size:
                work.windows.append(self._requested.popleft())
            return None if work.is_empty and not self._unfinished else work

    def submit(self, work: Work, batch: Tensor | None) -> Callable[[], Iterator[Finished]]:
        """Begin to predict a batch: it finishes the tiles of which no window is missing then."""
        probabilities = None if batch is None else self.engine.probabilities(batch)

        def finished() -> Iterator[Finished]:
            with self._lock:
                if probabilities is not None:
                    for tile, found in zip(work.windows, probabilities, strict=False):  # a batch is filled up
                        self._blender.keep(tile, found)
                        self._under_way.discard(tile.index)
                tiles = list(self._finish())
            return iter(tiles)

        return finished

    def _request_windows(self, tile: GridTile) -> None:
        for item in self._blender.missing(tile):
            if item.index not in self._under_way:
                self._under_way.add(item.index)
                self._requested.append(item)

    def _finish(self) -> Iterator[Finished]:
        for _ in range(len(self._unfinished)):
            tile = self._unfinished.popleft()
            if self._blender.missing(tile):
                self._unfinished.append(tile)
                self._request_windows(tile)  # a window may have made room for others meanwhile
            else:
                yield tile, *self._blender.classify(tile, probability=self._probability)
