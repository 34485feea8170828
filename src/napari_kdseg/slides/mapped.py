"""A slide seen through a function of its pixels: other colours, one stain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari_kdseg.slides.slide import Slide


class MappedBackend:
    """Compute tiles from those of a slide; all else is as it is there.

    Parameters
    ----------
    slide
        Gives the pixels; it stays open as long as this is used.
    function
        ``function(pixels [h, w, c]) -> [h, w, channels]``, pixel by pixel.
    channels, dtype, channel_names
        Of its result, where they differ.
    """

    def __init__(
        self,
        slide: Slide,
        function: Callable[[np.ndarray], np.ndarray],
        channels: int | None = None,
        dtype: Any = None,
        channel_names: tuple[str, ...] | None = None,
    ):
        self._slide, self._function = slide, function
        count = slide.channels if channels is None else channels
        if channel_names is None:
            same = count == slide.channels
            channel_names = slide.channel_names if same else tuple(f"channel {i + 1}" for i in range(count))
        ground = np.array(slide.background, slide.dtype).reshape(1, 1, -1)
        self.metadata = replace(
            slide.metadata,
            levels=slide.levels,
            channels=count,
            dtype=slide.dtype if dtype is None else np.dtype(dtype),
            channel_names=channel_names,
            background=tuple(function(ground)[0, 0].tolist()),
            brightfield=slide.brightfield and count == 3,
            associated=(),
        )

    def read_tile(self, level: int, row: int, column: int) -> np.ndarray:
        """Compute one tile."""
        return self._function(self._slide.tile(level, row, column))

    def read_associated(self, name: str) -> np.ndarray:
        """The slide itself has them."""
        raise KeyError(name)

    def close(self) -> None:
        """Nothing is held open."""
