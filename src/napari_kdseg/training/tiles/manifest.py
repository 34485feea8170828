"""The optional ``manifest.csv`` beside the tiles: what is known of each, one line a tile."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from napari_kdseg.errors import DataError
from napari_kdseg.training.settings import DataConfig
from napari_kdseg.training.tiles.tile import composed, refuse

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


@dataclass(frozen=True)
class ManifestRow:
    """What a manifest says of one tile; ``None`` where it says nothing."""

    split: str | None = None
    patient: str | None = None
    class_index: int | None = None
    mpp: float | None = None


def find_manifest(config: DataConfig) -> Path | None:
    """Path of the manifest of ``config``, or ``None`` where there is none.

    Raises
    ------
    DataError
        If one is named that does not exist.
    """
    if config.manifest is None:
        path = config.folder.expanduser() / "manifest.csv"
        return path if path.is_file() else None
    path = config.manifest.expanduser()
    if not path.is_file():
        raise DataError(f"The manifest {path} does not exist. Choose another file, or leave the field empty.")
    return path


def read_manifest(path: Path) -> tuple[dict[str, ManifestRow], dict[int, str]]:
    """Read the columns ``tile``, ``split``, ``patient``, ``class_index``, ``class`` and ``mpp``.

    Returns
    -------
    tuple
        The rows by tile, and the names of the classes by index.

    Raises
    ------
    DataError
        If the file cannot be read, has no column ``tile``, names a tile twice, or holds unknown values.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            lines = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path.name} cannot be read ({error}). Save it as CSV with commas, in UTF-8."
        ) from error
    if "tile" not in columns:
        raise DataError(
            f"{path.name} has no column 'tile' (it has: {', '.join(columns) or 'none'}). Name the column."
        )
    rows: dict[str, ManifestRow] = {}
    names: dict[int, str] = {}
    twice, bad_split, bad_index, bad_name = [], [], [], []
    for line in lines:
        tile, split = _text(line, "tile"), _text(line, "split")
        if tile is None:
            continue
        if split is not None and split.lower() not in SPLITS:
            bad_split.append(f"{tile} ('{split}')")
        index = _text(line, "class_index")
        if index is not None and not (index.isdecimal() and int(index) < 255):
            bad_index.append(f"{tile} ('{index}')")
            index = None
        if tile in rows:
            twice.append(tile)
        number, name = None if index is None else int(index), _text(line, "class")
        if number is not None and name is not None and names.setdefault(number, name) != name:
            bad_name.append(f"{tile} ({number} is '{names[number]}' and '{name}')")
        rows[tile] = ManifestRow(
            SPLITS.get((split or "").lower()), _text(line, "patient"), number, _scale(line)
        )
    refuse(twice, f"{path.name} names {{count}} more than once: {{names}}. Keep one line for each.", "tile")
    refuse(
        bad_split,
        f"{path.name} gives {{count}} a split other than train, val or test: {{names}}. Correct it.",
        "tile",
    )
    refuse(
        bad_index,
        f"{path.name} gives {{count}} a class_index that is no number from 0 to 254: {{names}}. Correct it.",
        "tile",
    )
    refuse(
        bad_name, f"{path.name} gives one class_index two names in {{count}}: {{names}}. Correct it.", "line"
    )
    if not rows:
        raise DataError(f"{path.name} names no tiles. Fill it in, or remove it to use all tiles.")
    return rows, names


def _scale(line: dict[str, str]) -> float | None:
    """Return micrometres per pixel, or ``None`` where the cell holds no positive number."""
    try:
        value = float(_text(line, "mpp") or 0)
    except ValueError:
        return None
    return value if 0 < value < math.inf else None


def _text(line: dict[str, str], column: str) -> str | None:
    """Return the stripped text of a cell in composed characters, or ``None`` where it is empty or missing."""
    return composed((line.get(column) or "").strip()) or None
