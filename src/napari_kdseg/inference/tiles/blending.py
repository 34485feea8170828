"""Neighbouring windows blended by a Gaussian, for networks that see the whole image and see it differently each time.

A pixel is the weighted mean of what every window that holds it says, weighed by how near the window's middle it lies
(as MONAI and nnU-Net do, sigma an eighth of the window). Unlike there nothing is added up on a canvas: a tile is a
function of the windows of its eight neighbours, added in a fixed order, so that each pixel is written once, tiles come
in any order, and a resumed run gives the same bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from napari_kdseg.masks.tiling import GridIndex, GridTile

SIGMA = 1 / 8
#: Bytes of windows that are kept for the tiles beside them.
WINDOW_BYTES = 512 * 2**20
#: Tiles are worked on in blocks of so many by so many: the windows at the rim of a block may be needed twice.
BLOCK = 4


def gaussian_weights(side: int) -> np.ndarray:
    """Return the weight of each pixel of a window, float32 ``[side, side]``, above zero everywhere."""
    offset = np.arange(side, dtype=np.float64) - (side - 1) / 2
    line = np.exp(-0.5 * (offset / (SIGMA * side)) ** 2)
    return np.outer(line, line).astype(np.float32)


def blending_halo(tile: int, multiple: int) -> int:
    """Return the halo of blended windows: neighbours overlap by a fifth of a window."""
    return -(-tile // 8 // multiple) * multiple


class Blender:
    """Keeps the probabilities of windows until the tiles beside them are done.

    Parameters
    ----------
    tiles
        Every tile of the mask whose window takes part; tiles are a function of this set, so it must not
        depend on what was asked for.
    side
        Side of the windows.
    device
        Where probabilities are kept.
    """

    def __init__(self, tiles: Iterable[GridTile], side: int, device: torch.device):
        self._tiles = {tile.index: tile for tile in tiles}
        self._weights = torch.from_numpy(gaussian_weights(side)).to(device)
        self._windows: OrderedDict[GridIndex, Tensor] = OrderedDict()
        self._side = side

    def needed(self, tile: GridTile) -> list[GridTile]:
        """Return the tiles whose windows hold a part of ``tile``, in the order they are added."""
        around = [(tile.row + dy, tile.column + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        return [self._tiles[index] for index in around if index in self._tiles]

    def missing(self, tile: GridTile) -> list[GridTile]:
        """Return those of :meth:`needed` whose window is not there; the others are kept a while longer."""
        found = []
        for item in self.needed(tile):
            if item.index in self._windows:
                self._windows.move_to_end(item.index)
            else:
                found.append(item)
        return found

    def keep(self, tile: GridTile, probabilities: Tensor) -> None:
        """Take the probabilities ``[C, side, side]`` of the window of ``tile``; the oldest make room."""
        self._windows[tile.index] = probabilities.to(torch.float16)
        size = probabilities.numel() * 2
        while len(self._windows) > max(12, WINDOW_BYTES // size):
            self._windows.popitem(last=False)

    def blend(self, tile: GridTile) -> Tensor:
        """Return the blended probabilities of a tile, float32 ``[C, height, width]``; no window may be missing."""
        top, left = tile.y, tile.x
        total: Tensor | None = None
        weight = torch.zeros(tile.height, tile.width, device=self._weights.device)
        for item in self.needed(tile):
            window = self._windows[item.index]
            y, x = item.window[:2]
            # Where the window lies on the tile, in coordinates of the tile.
            rows = slice(max(y - top, 0), min(y + self._side - top, tile.height))
            columns = slice(max(x - left, 0), min(x + self._side - left, tile.width))
            if rows.stop <= rows.start or columns.stop <= columns.start:
                continue
            there = (
                slice(rows.start + top - y, rows.stop + top - y),
                slice(columns.start + left - x, columns.stop + left - x),
            )
            if total is None:
                total = torch.zeros(len(window), tile.height, tile.width, device=window.device)
            share = self._weights[there]
            total[:, rows, columns] += window[(slice(None), *there)].float() * share
            weight[rows, columns] += share
        assert total is not None, "a tile lies in its own window"
        return total / weight

    def classify(self, tile: GridTile, *, probability: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the classes of a tile, uint8 ``[h, w]``, and, if wanted, their probability, float32."""
        chance, classes = self.blend(tile).max(dim=0)
        return classes.to(torch.uint8).cpu().numpy(), chance.cpu().numpy() if probability else None
