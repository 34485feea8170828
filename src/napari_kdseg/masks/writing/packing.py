"""Packing a finished mask: its many small chunk files become few large ones (shards of zarr v3).

A slide at full resolution has tens of thousands of chunks; copying, listing and deleting so many files is slow. Shards
are written whole, one after another, into new arrays beside the old ones; then the metadata names the new arrays in
one step, and the old ones go. A program killed at any moment leaves a mask that is whole, packed or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from napari_kdseg.masks.disk import flush_names, flush_to_disk
from napari_kdseg.masks.metadata import (
    META,
    journal_path,
    level_paths,
    read_attributes,
    remove_leftovers,
    with_level_paths,
    write_attributes,
)
from napari_kdseg.masks.reduction import NOT_COMPUTED

COMPRESSION: dict[str, Any] = {"compressors": ZstdCodec(level=1)}
#: Chunks along each side of a shard: 4096 px at the usual tile of 512, 16 MB in memory.
SHARD_CHUNKS = 8
Box = tuple[slice, slice]


def is_packed(attributes: dict[str, Any]) -> bool:
    """Tell whether the levels of a mask are packed."""
    return level_paths(attributes)[0] != "0"


def count_shards(folder: Path) -> int:
    """Return how many shards the mask in ``folder`` has, or will have."""
    shapes = [zarr.open_array(folder / path, mode="r") for path in level_paths(read_attributes(folder))]
    return sum(len(list(_boxes(array.shape, _shards(array.shape, array.chunks)))) for array in shapes)


def pack(folder: Path, journal: bytes | None, step: Callable[[], None]) -> None:
    """Pack one mask; the bytes depend on its content only, not on the order its tiles came in.

    Parameters
    ----------
    folder
        Of the mask, which nobody else writes at the time.
    journal
        The lines of the journal, if this mask is the one that holds it.
    step
        Called before every shard; an exception it raises leaves the mask as it was.

    Raises
    ------
    OSError
        If the disk is full, or the folder cannot be written any more; the mask stays as it was.
    """
    attributes = read_attributes(folder)
    paths = level_paths(attributes)
    new = [f"s{level}" for level in range(len(paths))]
    remove_leftovers(folder)
    try:
        for path, packed in zip(paths, new, strict=True):
            _pack_level(folder / path, folder / packed, step)
        if journal is not None:
            copy = folder / new[0] / journal_path(folder).name
            copy.write_bytes(journal)
            flush_to_disk([copy])
        flush_names([folder])
        write_attributes(folder, with_level_paths(attributes, new))
    finally:
        remove_leftovers(folder)  # the old arrays, or the new ones if they were not to be


def _pack_level(source: Path, target: Path, step: Callable[[], None]) -> None:
    array = zarr.open_array(source, mode="r")
    shards = _shards(array.shape, array.chunks)
    packed = zarr.create_array(
        target,
        shape=array.shape,
        chunks=array.chunks,
        shards=shards,
        dtype=array.dtype,
        fill_value=array.fill_value,
        dimension_names=("y", "x"),
        **COMPRESSION,
    )
    files = [target / META]
    for box in _boxes(array.shape, shards):
        step()
        block = np.asarray(array[box])
        if (block == NOT_COMPUTED).all():
            continue
        packed[box] = block
        row, column = (str(span.start // side) for span, side in zip(box, shards, strict=True))
        files.append(target / "c" / row / column)
        flush_to_disk(files[-1:])
    flush_to_disk(files[:1])
    flush_names({target, *(file.parents[1] for file in files[1:])})


def _shards(shape: tuple[int, ...], chunks: tuple[int, ...]) -> tuple[int, int]:
    """Return the sides of a shard; a small level is one shard no larger than it needs to be."""
    height, width = (
        min(SHARD_CHUNKS, math.ceil(side / chunk)) * chunk for side, chunk in zip(shape, chunks, strict=True)
    )
    return height, width


def _boxes(shape: tuple[int, ...], shards: tuple[int, int]) -> Iterator[Box]:
    for y in range(0, shape[0], shards[0]):
        for x in range(0, shape[1], shards[1]):
            yield slice(y, min(y + shards[0], shape[0])), slice(x, min(x + shards[1], shape[1]))
