"""Which tiles a student sees: nested shares of the training tiles in which every kind of tile is there.

A share is a manifest beside the data, so that a run of it is an ordinary distillation.
"""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from napari_kdseg.files import write_whole
from napari_kdseg.training.tiles.data import TileCollection
from napari_kdseg.training.tiles.dataset import TileDataset
from napari_kdseg.training.tiles.tile import Tile, stable_hash

COLUMNS = ("tile", "split", "patient", "class_index", "class", "mpp")


def kinds(collection: TileCollection, check: Callable[[], None] = lambda: None) -> list[str]:
    """Say of each training tile which classes it shows: tiles are drawn from every kind alike."""
    if collection.by_class_index:
        return [str(tile.class_index) for tile in collection.train]
    shown = TileDataset(collection, collection.train, 1).presence(check)
    return ["".join("1" if there else "0" for there in row) for row in shown]


def share(tiles: Sequence[Tile], of_kind: Sequence[str], fraction: float, seed: int) -> list[Tile]:
    """Draw a share of the tiles: of every kind the same fraction, rounded up.

    Parameters
    ----------
    tiles, of_kind
        The training tiles, and what kind each is of.
    fraction
        0 to 1. A smaller share of the same seed lies within a larger one.
    seed
        Another seed draws other tiles.
    """
    groups: dict[str, list[Tile]] = defaultdict(list)
    for tile, kind in zip(tiles, of_kind, strict=True):
        groups[kind].append(tile)
    drawn: list[Tile] = []
    for group in groups.values():
        group.sort(key=lambda tile: stable_hash(seed, "label share", tile.name))
        drawn += group[: math.ceil(fraction * len(group) - 1e-9)]
    return sorted(drawn, key=lambda tile: tile.name)


def write_share(path: Path, collection: TileCollection, train: Sequence[Tile]) -> Path:
    """Write the manifest of a share: its training tiles, and all tiles for validation and test."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for split, tiles in (("train", train), ("val", collection.val), ("test", collection.test)):
        for tile in tiles:
            name = "" if tile.class_index is None else collection.classes[tile.class_index]
            index = "" if tile.class_index is None else tile.class_index
            writer.writerow([tile.name, split, tile.patient or "", index, name, tile.mpp or ""])
    write_whole(path, text.getvalue().encode())
    return path
