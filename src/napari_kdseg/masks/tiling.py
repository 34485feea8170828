"""The grid of output tiles and of the windows the network sees for them.

Valid-region cropping: a tile is predicted from a window with a halo of context, and only its core is kept.
With origins, strides and halo at multiples of the network's total downsampling, and a halo of at least the
receptive-field radius, the result is that of the whole image at once, every pixel is written exactly once,
and tiles may come in any order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from napari_kdseg.errors import ConfigurationError

#: Row and column of a tile in the grid of its mask.
GridIndex = tuple[int, int]


@dataclass(frozen=True)
class GridTile:
    """One output tile; all numbers are pixels of the mask.

    Attributes
    ----------
    row, column
        Where it is in the grid, which is the grid of chunks on disk.
    y, x, height, width
        What is written; tiles at the lower and right edge of the slide are smaller.
    window
        ``(y, x, height, width)`` of what the network sees. All windows of a plan are equally large and may reach
        beyond the slide, where there is background.
    """

    row: int
    column: int
    y: int
    x: int
    height: int
    width: int
    window: tuple[int, int, int, int]

    @property
    def index(self) -> GridIndex:
        """Row and column."""
        return self.row, self.column

    @property
    def core(self) -> tuple[slice, slice]:
        """Where the tile lies inside its window."""
        top, left = self.y - self.window[0], self.x - self.window[1]
        return slice(top, top + self.height), slice(left, left + self.width)


def mask_shape(slide_shape: tuple[int, int], downsample: tuple[float, float]) -> tuple[int, int]:
    """Return ``(height, width)`` of a mask that covers a slide of ``slide_shape`` at ``downsample``."""
    height, width = (
        max(1, math.ceil(size / factor - 1e-6)) for size, factor in zip(slide_shape, downsample, strict=True)
    )
    return height, width


def to_mask_region(
    region: tuple[int, int, int, int], downsample: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Return the smallest ``(y, x, height, width)`` in mask pixels that covers ``region`` of level 0."""
    starts = [math.floor(region[axis] / downsample[axis] + 1e-6) for axis in (0, 1)]
    stops = [math.ceil((region[axis] + region[axis + 2]) / downsample[axis] - 1e-6) for axis in (0, 1)]
    return starts[0], starts[1], stops[0] - starts[0], stops[1] - starts[1]


def to_level_0(
    region: tuple[int, int, int, int], downsample: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Return the smallest ``(y, x, height, width)`` of level 0 that covers ``region`` of the mask."""
    starts = [math.floor(region[axis] * downsample[axis] + 1e-6) for axis in (0, 1)]
    stops = [math.ceil((region[axis] + region[axis + 2]) * downsample[axis] - 1e-6) for axis in (0, 1)]
    return starts[0], starts[1], stops[0] - starts[0], stops[1] - starts[1]


def plan_tiles(
    shape: tuple[int, int],
    region: tuple[int, int, int, int] | None,
    tile: int,
    halo: int,
    multiple: int = 1,
) -> list[GridTile]:
    """Plan the tiles that cover ``region`` of a mask, from its centre outward.

    Parameters
    ----------
    shape
        ``(height, width)`` of the mask.
    region
        ``(y, x, height, width)`` in mask pixels, grown to whole tiles and cut at the mask; ``None`` is all of it.
    tile
        Side of a tile, a multiple of ``multiple``.
    halo
        Context on every side, rounded up to a multiple of ``multiple``.
    multiple
        Total downsampling of the network.

    Returns
    -------
    list of GridTile
        Each pixel of the grown region lies in exactly one tile.

    Raises
    ------
    ConfigurationError
        If the tile does not fit the network, or the region lies outside the slide.
    """
    if tile % multiple:
        raise ConfigurationError(
            f"A tile of {tile} px does not fit this network, which needs a multiple of {multiple}. "
            f"Use {max(1, round(tile / multiple)) * multiple} instead."
        )
    halo = math.ceil(halo / multiple) * multiple
    y, x, height, width = region or (0, 0, *shape)
    top, left = max(0, y), max(0, x)
    bottom, right = min(shape[0], y + height), min(shape[1], x + width)
    if bottom <= top or right <= left:
        raise ConfigurationError("The region lies outside the slide. Choose one that overlaps it.")
    side = tile + 2 * halo
    tiles = [
        GridTile(
            row,
            column,
            row * tile,
            column * tile,
            min(tile, shape[0] - row * tile),
            min(tile, shape[1] - column * tile),
            (row * tile - halo, column * tile - halo, side, side),
        )
        for row in range(top // tile, math.ceil(bottom / tile))
        for column in range(left // tile, math.ceil(right / tile))
    ]
    centre_y, centre_x = (top + bottom) / 2, (left + right) / 2

    def distance(item: GridTile) -> float:
        return math.hypot(item.y + item.height / 2 - centre_y, item.x + item.width / 2 - centre_x)

    return sorted(tiles, key=distance)
