"""Tiles seen through a function of their pixels: other colours, one stain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from napari_kdseg.slides.readers.backend import Metadata


class MappedBackend:
    """Compute tiles from those of a slide; all else is as it is there.

    Parameters
    ----------
    metadata
        Of the slide, with all of its levels, its background and whether it is a brightfield slide.
    tile
        ``tile(level, row, column)`` gives the pixels of the slide, which stays open as long as this is used.
    function
        ``function(pixels [h, w, c]) -> [h, w, channels]``, pixel by pixel.
    channels, dtype, channel_names
        Of its result, where they differ.
    """

    def __init__(
        self,
        metadata: Metadata,
        tile: Callable[[int, int, int], np.ndarray],
        function: Callable[[np.ndarray], np.ndarray],
        channels: int | None = None,
        dtype: Any = None,
        channel_names: tuple[str, ...] | None = None,
    ):
        self._tile, self._function = tile, function
        count = metadata.channels if channels is None else channels
        if channel_names is None:
            same = count == metadata.channels
            channel_names = (
                metadata.channel_names if same else tuple(f"channel {i + 1}" for i in range(count))
            )
        ground = np.array(metadata.background, metadata.dtype).reshape(1, 1, -1)
        self.metadata = replace(
            metadata,
            channels=count,
            dtype=metadata.dtype if dtype is None else np.dtype(dtype),
            channel_names=channel_names,
            background=tuple(function(ground)[0, 0].tolist()),
            brightfield=bool(metadata.brightfield) and count == 3,
            associated=(),
        )

    def read_tile(self, level: int, row: int, column: int) -> np.ndarray:
        """Compute one tile."""
        return self._function(self._tile(level, row, column))

    def read_associated(self, name: str) -> np.ndarray:
        """The slide itself has them."""
        raise KeyError(name)

    def close(self) -> None:
        """Nothing is held open."""
