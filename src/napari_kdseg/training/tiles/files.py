"""The pictures of a folder by the names that images and masks are paired by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from napari_kdseg.errors import DataError
from napari_kdseg.training.tiles.pictures import SUFFIXES
from napari_kdseg.training.tiles.tile import composed, refuse


def pictures_below(folder: Path, sub: str) -> dict[str, Path]:
    """Pictures below ``folder / sub`` by stem, or by relative path where stems occur more than once; NFC."""
    root = folder / sub
    if not root.is_dir():
        raise DataError(
            f"There is no folder '{sub}' in {folder}. Choose another folder, or name the one that is meant."
        )
    paths = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not paths:
        raise DataError(
            f"The folder '{sub}' in {folder} holds no PNG, TIFF or JPEG file. Choose another folder."
        )
    relative = [composed(path.relative_to(root).with_suffix("").as_posix()) for path in paths]
    doubles = [name for name, count in Counter(relative).items() if count > 1]
    refuse(
        doubles,
        f"{{count}} in '{sub}' {{is_}} there more than once, with different suffixes or in different Unicode: "
        f"{{names}}. Keep one.",
    )
    stems = [composed(path.stem) for path in paths]
    keys = stems if len(set(stems)) == len(stems) else relative
    return dict(zip(keys, paths, strict=True))


def spelled_otherwise(images: Collection[str], masks: Collection[str]) -> str:
    """Say which names without a partner differ from another only in upper and lower case."""
    by_letters = {mask.casefold(): mask for mask in masks}
    pairs = [
        f"{name}, {by_letters[name.casefold()]}" for name in sorted(images) if name.casefold() in by_letters
    ]
    if not pairs:
        return ""
    return (
        f"Upper and lower case count, and {len(pairs)} differ by that from a mask ({pairs[0]}): rename them. "
    )
