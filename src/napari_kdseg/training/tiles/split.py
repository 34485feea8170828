"""Training, validation and test tiles: as the manifest says, or drawn so that no patient is divided."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from napari_kdseg.errors import DataError
from napari_kdseg.training.settings import DataConfig
from napari_kdseg.training.tiles.tile import Tile, refuse, stable_hash


def divide(tiles: Sequence[Tile], config: DataConfig) -> tuple[list[Tile], list[Tile], list[Tile], list[str]]:
    """Divide tiles into training, validation and test without dividing a patient.

    The manifest's own split is taken where it is given for every tile. Otherwise groups (patients; single tiles
    where none is named) are drawn in an order fixed by ``config.seed``.

    Returns
    -------
    tuple
        Training, validation and test tiles, and sentences about how they were divided.

    Raises
    ------
    DataError
        If a patient is in two splits of the manifest, or there are too few patients to divide.
    """
    messages = []
    given = [tile.split for tile in tiles]
    if any(given) and not all(given):
        without = [tile.name for tile in tiles if not tile.split]
        refuse(
            without,
            "{count} {has} no split in the manifest: {names}. Fill in the column, or leave it out for all.",
            "tile",
        )
    parts: dict[str, list[Tile]] = {"train": list(tiles), "val": [], "test": []}
    if all(given):
        parts = {split: [tile for tile in tiles if tile.split == split] for split in parts}
        _refuse_divided_patients(tiles)
        if not parts["train"]:
            raise DataError(
                "The manifest names no tile of the split 'train'. Add some, or leave the column out."
            )
    fractions = {
        "test": 0.0 if all(given) else config.test_fraction,
        "val": 0.0 if parts["val"] else config.validation_fraction,
    }
    if fractions["test"] or fractions["val"]:
        patients = all(tile.patient for tile in tiles)
        if not patients:
            messages.append(
                "Not every tile has a patient, so tiles are divided one by one: neighbours may lie on both sides "
                "and flatter the score. A column 'patient' in manifest.csv prevents that."
            )
        parts.update(_draw(parts["train"], fractions, config.seed, by_patient=patients))
    if all(given) and fractions["val"]:
        messages.append(
            "The manifest names no validation tiles, so some of the training tiles are kept for it."
        )
    return parts["train"], parts["val"], parts["test"], messages


def _draw(
    tiles: Sequence[Tile], fractions: dict[str, float], seed: int, *, by_patient: bool
) -> dict[str, list[Tile]]:
    """Draw whole groups for test, then validation; the rest is for training."""
    groups: dict[str, list[Tile]] = defaultdict(list)
    for tile in tiles:
        groups[(tile.patient if by_patient else tile.name) or tile.name].append(tile)
    wanted = [split for split, fraction in fractions.items() if fraction]
    if len(groups) <= len(wanted):
        kind = "patients" if by_patient else "tiles"
        raise DataError(
            f"{len(groups)} {kind} cannot be divided into training and {' and '.join(wanted)}. Add {kind}, or fill "
            "in the column 'split' in manifest.csv yourself."
        )
    waiting = sorted(groups, key=lambda group: stable_hash(seed, "split", group))
    drawn: dict[str, list[Tile]] = {}
    for position, split in enumerate(wanted):
        target, part, spare = fractions[split] * len(tiles), list[Tile](), len(wanted) - position
        while len(waiting) > spare and (not part or len(part) + len(groups[waiting[0]]) / 2 <= target):
            part += groups[waiting.pop(0)]
        drawn[split] = sorted(part, key=lambda tile: tile.name)
    drawn["train"] = sorted((tile for group in waiting for tile in groups[group]), key=lambda tile: tile.name)
    return drawn


def _refuse_divided_patients(tiles: Iterable[Tile]) -> None:
    splits: dict[str, set[str]] = defaultdict(set)
    for tile in tiles:
        if tile.patient and tile.split:
            splits[tile.patient].add(tile.split)
    divided = [
        f"{patient} ({' and '.join(sorted(found))})"
        for patient, found in sorted(splits.items())
        if len(found) > 1
    ]
    refuse(
        divided,
        "{count} {is_} in more than one split: {names}. Keep all tiles of a patient in one split.",
        "patient",
    )
