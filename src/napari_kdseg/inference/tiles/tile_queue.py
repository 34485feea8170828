"""Which tile comes next: what is on screen, then what somebody drew, then outward."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_kdseg.masks.tiling import GridTile, to_level_0

Region = tuple[float, float, float, float]


class TileQueue:
    """Tiles that wait, the most wanted first.

    Parameters
    ----------
    tiles
        In the order they come in while nobody looks at anything: nearest to the middle of their region first.
    downsample
        ``(y, x)`` of their mask against level 0.
    first
        Rectangles ``(y, x, height, width)`` in level-0 pixels that come after what is on screen.
    block
        Tiles are ordered in blocks of so many by so many, so that neighbours are worked on together.
    """

    def __init__(
        self,
        tiles: Sequence[GridTile],
        downsample: tuple[float, float],
        first: Sequence[Region] = (),
        block: int = 1,
    ):
        self._tiles = list(tiles)
        self._waiting = np.ones(len(self._tiles), dtype=bool)
        boxes = [to_level_0((t.y, t.x, t.height, t.width), downsample) for t in self._tiles]
        self._boxes = np.array(boxes, dtype=float).reshape(-1, 4)
        self._blocks = np.array([(t.row // block, t.column // block) for t in self._tiles]).reshape(-1, 2)
        self._wanted = np.zeros(len(self._tiles), dtype=bool)
        for region in first:
            self._wanted |= self._touches(region)
        self._view: Region | None = None
        self._sort()

    def __len__(self) -> int:
        return int(self._waiting.sum())

    @property
    def waiting(self) -> list[GridTile]:
        """The tiles that wait, in the order they came in."""
        return [tile for tile, waits in zip(self._tiles, self._waiting, strict=True) if waits]

    def look_at(self, view: Region | None) -> None:
        """Order what waits anew, around ``view`` in level-0 pixels; ``None``: nobody looks."""
        if view != self._view:
            self._view = view
            self._sort()

    def pop(self) -> GridTile:
        """Take the most wanted tile out.

        Raises
        ------
        IndexError
            If none waits.
        """
        index = self._order.pop()
        self._waiting[index] = False
        return self._tiles[index]

    def _sort(self) -> None:
        waiting = np.flatnonzero(self._waiting)
        as_they_come = waiting.astype(float)
        if self._view is None:
            on_screen, distance = np.zeros(len(waiting)), as_they_come
        else:
            on_screen = self._touches(self._view)[waiting]
            distance = self._distance(self._view)[waiting]
        blocks = self._blocks[waiting]
        nearest = _least_of_block(blocks, distance)
        keys = (distance, blocks[:, 1], blocks[:, 0], nearest, ~self._wanted[waiting], ~(on_screen > 0))
        self._order: list[int] = waiting[np.lexsort(keys)][::-1].tolist()

    def _touches(self, region: Region) -> np.ndarray:
        y, x, height, width = region
        top, left, tall, wide = self._boxes.T
        return (top < y + height) & (top + tall > y) & (left < x + width) & (left + wide > x)

    def _distance(self, region: Region) -> np.ndarray:
        y, x, height, width = region
        top, left, tall, wide = self._boxes.T
        return np.hypot(top + tall / 2 - y - height / 2, left + wide / 2 - x - width / 2)


def _least_of_block(blocks: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Return for every tile the least distance of its block."""
    if not len(blocks):
        return distance
    _, member = np.unique(blocks, axis=0, return_inverse=True)
    member = member.reshape(-1)
    least = np.full(member.max() + 1, np.inf)
    np.minimum.at(least, member, distance)
    return least[member]
