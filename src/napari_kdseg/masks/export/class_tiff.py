"""Masks of classes as tiled, pyramidal OME-TIFF, written tile by tile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_kdseg.files import file_aside
from napari_kdseg.masks.disk import writing
from napari_kdseg.slides.annotations.class_table import format_class_table

TILE = 512
Shape = tuple[int, int]
ReadTile = Callable[[int, int, int], np.ndarray]


def write_class_tiff(
    path: Path,
    shapes: Sequence[Shape],
    read: ReadTile,
    *,
    pixel_size: tuple[float, float] | None,
    name: str,
    classes: Sequence[str],
    colours: Sequence[tuple[int, int, int]],
    step: Callable[[int, int], None],
) -> None:
    """Write a mask of class indices.

    Parameters
    ----------
    path
        Written whole or not at all; a file of that name is replaced.
    shapes
        ``(height, width)`` of every level, from fine to coarse.
    read
        ``read(level, y, x)`` gives uint8 ``[512, 512]``, 255 beyond the level.
    pixel_size
        Micrometres a pixel of the finest level, ``(y, x)``, if known.
    name
        Of the picture.
    classes, colours
        Kept in the description of the picture, where :func:`~napari_kdseg.slides.open_annotation` finds them.
    step
        ``step(done, total)``, called before every tile; an exception it raises stops the work.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    total = sum(math.ceil(height / TILE) * math.ceil(width / TILE) for height, width in shapes)
    done = 0

    def tiles(level: int) -> Iterator[np.ndarray]:
        nonlocal done
        for y in range(0, shapes[level][0], TILE):
            for x in range(0, shapes[level][1], TILE):
                done += 1
                step(done, total)
                yield read(level, y, x)

    options: dict[str, Any] = {
        "dtype": np.uint8,
        "tile": (TILE, TILE),
        "compression": "zlib",
        "photometric": "minisblack",
    }
    about: dict[str, Any] = {"axes": "YX", "Name": name, "Description": format_class_table(classes, colours)}
    if pixel_size is not None:
        about |= {"PhysicalSizeY": pixel_size[0], "PhysicalSizeYUnit": "µm"}
        about |= {"PhysicalSizeX": pixel_size[1], "PhysicalSizeXUnit": "µm"}
    with (
        writing(path.name),
        file_aside(path) as scratch,
        tifffile.TiffWriter(scratch, bigtiff=True, ome=True) as tif,
    ):
        tif.write(tiles(0), shape=shapes[0], subifds=len(shapes) - 1, metadata=about, **options)
        for level in range(1, len(shapes)):
            tif.write(tiles(level), shape=shapes[level], subfiletype=1, **options)
