"""Other ways to read a view of a slide, for ``viewport.py``. Those that are not installed are left out with the reason.

Each peer is made from a path and then gives ``read(level, y, x)``: 1024 x 1024 pixels of that level. None of them may
decode in more than one thread, but fastslide, which cannot be told.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Read = Callable[[int, int, int], Any]
SIDE = 1024


def openslide(path: Path) -> Read:
    """``OpenSlide.read_region`` as everybody calls it: RGBA."""
    from openslide import OpenSlide

    slide = OpenSlide(path)
    factors = slide.level_downsamples

    def read(level: int, y: int, x: int) -> Any:
        location = (round(x * factors[level]), round(y * factors[level]))
        return np.asarray(slide.read_region(location, level, (SIDE, SIDE)))

    return read


def tiffslide(path: Path) -> Read:
    """tiffslide, as an array."""
    from tiffslide import TiffSlide

    slide = TiffSlide(path)
    factors = slide.level_downsamples

    def read(level: int, y: int, x: int) -> Any:
        location = (round(x * factors[level]), round(y * factors[level]))
        return slide.read_region(location, level, (SIDE, SIDE), as_array=True)

    return read


def zarr(path: Path) -> Read:
    """Tifffile's zarr store."""
    levels = _zarr_levels(path)
    return lambda level, y, x: levels[level][y : y + SIDE, x : x + SIDE]


def dask(path: Path) -> Read:
    """Dask over that store, a chunk a tile."""
    import dask.array

    levels = [dask.array.from_zarr(level) for level in _zarr_levels(path)]
    return lambda level, y, x: _compute(levels[level], y, x)


def napari_wsi_design(path: Path) -> Read:
    """What napari-wsi does, at its least: dask over a zarr store whose chunks are tiles read by OpenSlide."""
    import dask.array
    import zarr.storage
    from openslide import OpenSlide
    from zarr.core.buffer.core import default_buffer_prototype

    slide = OpenSlide(path)
    tile = int(slide.properties["openslide.level[0].tile-width"])

    class Store(zarr.storage.MemoryStore):
        async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
            prototype = prototype or default_buffer_prototype()
            match = re.fullmatch(r"(\d+)/c/(\d+)/(\d+)/0", key)
            if match is None:
                return await super().get(key, prototype, byte_range)
            level, row, column = map(int, match.groups())
            factor = round(slide.level_downsamples[level])
            location = (factor * column * tile, factor * row * tile)
            pixels = np.asarray(slide.read_region(location, level, (tile, tile)))
            return prototype.buffer.from_bytes(pixels.tobytes())

    group = zarr.create_group(Store())
    levels = []
    for index, (width, height) in enumerate(slide.level_dimensions):
        array = group.create_array(
            str(index),
            shape=(height, width, 4),
            chunks=(tile, tile, 4),
            dtype="uint8",
            compressors=None,
            filters=None,
        )
        levels.append(dask.array.from_zarr(array, chunks=array.chunks))
    return lambda level, y, x: _compute(levels[level], y, x)


def napari_wsi(path: Path) -> Read:
    """napari-wsi itself: its arrays, as it hands them to napari."""
    from napari_wsi.backends.openslide import OpenSlideStore

    levels = OpenSlideStore(path).to_layer_data_tuples()[0][0]
    return lambda level, y, x: _compute(levels[level], y, x)


def fastslide(path: Path) -> Read:
    """fastslide, without a cache, in as many threads as it likes."""
    from fastslide import FastSlide

    slide = FastSlide.from_file_path(path)
    slide.set_cache(None)
    return lambda level, y, x: slide.read_region((x, y), level, (SIDE, SIDE)).numpy()


PEERS: dict[str, Callable[[Path], Read]] = {
    "openslide": openslide,
    "tiffslide": tiffslide,
    "zarr": zarr,
    "dask": dask,
    "napari_wsi_design": napari_wsi_design,
    "napari_wsi": napari_wsi,
    "fastslide": fastslide,
}


def _zarr_levels(path: Path) -> list[Any]:
    import tifffile
    import zarr

    group = zarr.open(tifffile.TiffFile(path).series[0].aszarr(), mode="r")
    return [group[name] for name in sorted(group.array_keys(), key=int)]


def _compute(level: Any, y: int, x: int) -> Any:
    return level[y : y + SIDE, x : x + SIDE].compute(scheduler="synchronous")
