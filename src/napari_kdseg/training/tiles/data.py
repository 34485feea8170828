"""Annotated tiles on disk: pairs of image and mask, what is wrong with them, and what the masks mean.

Every problem is a sentence that names the first few files and the count. Loads no torch, so a dock can count tiles.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_kdseg.errors import DataError, explain
from napari_kdseg.training.settings import DataConfig
from napari_kdseg.training.tiles.files import pictures_below, spelled_otherwise
from napari_kdseg.training.tiles.manifest import ManifestRow, find_manifest, read_manifest
from napari_kdseg.training.tiles.mask_values import IGNORE, mask_values, refuse_values, white_is_class_1
from napari_kdseg.training.tiles.pictures import (
    PictureError,
    PictureHeader,
    picture_header,
    refuse_image,
)
from napari_kdseg.training.tiles.split import divide
from napari_kdseg.training.tiles.tile import Tile, listed, refuse, stable_hash


@dataclass(frozen=True)
class TileCollection:
    """All tiles of a data set, divided, and what their masks mean.

    Attributes
    ----------
    train, val, test
        Tiles of each split; no patient is in two of them.
    classes
        Names, background first.
    channels
        Channels of the images: 1 or 3, or more for a multi-channel TIFF.
    white_is_one
        255 means class 1, as 1 does.
    turned
        Pictures that an orientation tag turns or mirrors.
    by_class_index
        The foreground of a tile takes the tile's ``class_index``.
    mpp
        Micrometres per pixel of the tiles as stored: as given, else from the manifest if all tiles agree.
    messages
        What a person should know about the data, in sentences.
    """

    train: tuple[Tile, ...]
    val: tuple[Tile, ...]
    test: tuple[Tile, ...]
    classes: tuple[str, ...]
    channels: int = 3
    white_is_one: bool = False
    turned: int = 0
    by_class_index: bool = False
    mpp: float | None = None
    messages: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Number of tiles in each split."""
        return {"train": len(self.train), "val": len(self.val), "test": len(self.test)}

    @property
    def fingerprint(self) -> str:
        """A hash of names, sizes, splits and classes: a run is resumed on the same data only."""
        turned = f" {self.turned} turned" if self.turned else ""
        lines = [f"{self.classes} {self.channels} {self.white_is_one} {self.by_class_index}{turned}"]
        for split in ("train", "val", "test"):
            lines += [f"{split} {tile.name} {tile.size} {tile.class_index}" for tile in getattr(self, split)]
        return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()

    def target(self, tile: Tile, mask: np.ndarray) -> np.ndarray:
        """Turn the values of a mask as stored into classes (``uint8``, 255 ignored)."""
        if self.white_is_one:
            mask = np.where(mask == 255, np.uint8(1), mask)
        if self.by_class_index:
            mask = np.where((mask != 0) & (mask != IGNORE), np.uint8(tile.class_index or 0), mask).astype(
                np.uint8
            )
        return mask


def discover(config: DataConfig, check: Callable[[], None] = lambda: None) -> TileCollection:
    """Find, check and divide the tiles of a folder.

    Parameters
    ----------
    config
        Where they lie and what they mean.
    check
        Called once a tile: ``control.check`` of a job.

    Raises
    ------
    DataError
        If anything is missing, unpaired, unreadable or contradictory.
    """
    tiles, messages, names = _pair(config)
    tiles, channels, turned = _check_pictures(tiles, check)
    values, about_palettes = mask_values({tile.name: tile.mask for tile in tiles}, check)
    white_is_one, about_white = white_is_class_1(config, values)
    messages += [*_about_turned(turned), *about_palettes, *about_white]
    used = set().union(*values.values())
    if white_is_one:
        used = {0, 1}
    classes = _classes(config, tiles, used, names)
    if config.labels == "mask" and not white_is_one:
        refuse_values(values, len(classes))
    train, val, test, about_split = divide(tiles, config)
    collection = TileCollection(
        train=_limited(train, config),
        val=_limited(val, config),
        test=_limited(test, config),
        classes=classes,
        channels=channels,
        white_is_one=white_is_one,
        turned=len(turned),
        by_class_index=config.labels == "class_index",
        mpp=config.mpp or _one({tile.mpp for tile in tiles}),
        messages=(*messages, *about_split),
    )
    if len(collection.train) < 2:
        raise DataError(
            "There is only one tile to train on. Add tiles, or keep fewer for validation and test."
        )
    return collection


def describe(config: DataConfig) -> str:
    """Say what a folder of tiles holds, in a few sentences for people; raises as :func:`discover`."""
    return " ".join(told(config).values())


def told(config: DataConfig) -> dict[str, str]:
    """Say what a folder of tiles holds and what was decided of it, a sentence a line, by what it is about.

    Raises
    ------
    DataError
        As :func:`discover`.
    """
    collection = discover(config)
    counts = collection.counts
    tiles = (
        f"{sum(counts.values())} tiles: {counts['train']} for training, {counts['val']} for validation, "
        f"{counts['test']} for the test."
    )
    decided = {f"decided {number}": text for number, text in enumerate(collection.messages, start=1)}
    return {"tiles": tiles, "classes": f"Classes: {', '.join(collection.classes)}.", **decided}


def _pair(config: DataConfig) -> tuple[list[Tile], list[str], dict[int, str]]:
    """Pair images with masks by stem, as the manifest says where there is one."""
    folder = config.folder.expanduser()
    if not folder.is_dir():
        raise DataError(
            f"The data folder {folder} does not exist. Choose the folder that holds '{config.images}'."
        )
    images, masks = pictures_below(folder, config.images), pictures_below(folder, config.masks)
    messages: list[str] = []
    manifest = find_manifest(config)
    rows: dict[str, ManifestRow] = {}
    names: dict[int, str] = {}
    if manifest is not None:
        rows, names = read_manifest(manifest)
        refuse(
            sorted(set(rows) - set(images)),
            f"{manifest.name} names {{count}} that {{is_}} not in '{config.images}': {{names}}. "
            "Add the files or remove their lines.",
            "tile",
        )
        if len(images) > len(rows):
            messages.append(f"{len(images) - len(rows)} images are not in {manifest.name} and are left out.")
        images = {name: images[name] for name in rows}
    elif config.labels == "class_index":
        raise DataError(
            "Labels by 'class_index' need a manifest.csv with the columns tile and class_index. Add one."
        )
    refuse(
        sorted(set(images) - set(masks)),
        f"{{count}} {{has}} no mask of the same name in '{config.masks}': {{names}}. "
        f"{spelled_otherwise(set(images) - set(masks), set(masks) - set(images))}Add the masks, or remove the images.",
        "image",
    )
    unused = len(set(masks) - set(images))
    if unused and not rows:
        messages.append(f"{unused} masks have no image of the same name and are left out.")
    tiles = []
    for name in sorted(images):
        row = rows.get(name, ManifestRow())
        tiles.append(
            Tile(name, images[name], masks[name], (0, 0), row.patient, row.split, row.class_index, row.mpp)
        )
    return tiles, messages, names


def _check_pictures(tiles: Sequence[Tile], check: Callable[[], None]) -> tuple[list[Tile], int, list[str]]:
    """Look at every image and its mask; return the tiles with their sizes, the number of channels, what is turned."""
    unreadable, unusable, different = [], [], []
    checked: list[Tile] = []
    channels, turned = Counter[int](), list[str]()
    for tile in tiles:
        check()
        try:
            image, mask = picture_header(tile.image), picture_header(tile.mask)
        except PictureError as error:
            unreadable.append(str(error))
            continue
        try:
            refuse_image(tile.image, image)
        except PictureError as error:
            unusable.append(str(error))
        if image.size != mask.size:
            different.append(f"{tile.name} (image {_size(image)}, mask {_size(mask)})")
        pictures = ((tile.image, image), (tile.mask, mask))
        for path, header in pictures:
            if header.orientation != 1:
                turned.append(f"{path.parent.name}/{path.name}: {header.orientation}")
        channels[image.channels] += 1
        checked.append(replace(tile, size=image.size))
    refuse(unreadable, "{count} cannot be read: {names}. Replace or remove {them}.")
    refuse(
        unusable,
        "{count} cannot be trained on: {names}. Save all in the same way, or remove {them}.",
        "image",
    )
    refuse(
        different,
        "{count} {has} another size than the image: {names}. Export image and mask at the same size.",
        "mask",
    )
    if set(channels) - {1, 3} and len(channels) > 1:
        found = ", ".join(f"{number} with {count}" for count, number in sorted(channels.items()))
        raise DataError(
            f"The images have different numbers of channels ({found}). Train on images of one kind."
        )
    return checked, max(channels), turned


def _size(header: PictureHeader) -> str:
    tag = f" as its orientation {header.orientation} turns it" if header.orientation != 1 else ""
    return f"{header.size[1]} x {header.size[0]}{tag}"


def _about_turned(turned: Sequence[str]) -> list[str]:
    if not turned:
        return []
    return [
        f"{listed(turned, 'picture')} are turned or mirrored as their orientation tag (EXIF, TIFF) says and viewers "
        "show them; images and masks are taken to fit like that."
    ]


def _classes(
    config: DataConfig, tiles: Sequence[Tile], used: set[int], names: dict[int, str]
) -> tuple[str, ...]:
    """Names of the classes: as given, else from the manifest, else by number."""
    if config.labels == "class_index":
        without = [tile.name for tile in tiles if tile.class_index is None]
        refuse(without, "{count} {has} no class_index in the manifest: {names}. Fill in the column.", "tile")
        highest = max(tile.class_index or 0 for tile in tiles)
        if highest >= len(config.classes or range(highest + 1)):
            raise DataError(
                f"The manifest holds class_index {highest}, but only {len(config.classes or ())} classes are "
                "named (background is number 0). Name them all, or correct the manifest."
            )
    else:
        highest = max(used - {IGNORE}, default=0)
    if config.classes is not None:
        return config.classes
    listed = _listed_classes(config)
    if listed is not None and config.labels == "mask":
        return listed
    if highest == 0:
        raise DataError("The masks hold nothing but background. Choose masks that show something.")
    if highest > 63:
        raise DataError(
            f"The masks hold values up to {highest}, which are hardly classes. If they number single objects, "
            "save class masks instead; if they are classes, name them all."
        )
    if config.labels == "class_index":
        return ("background", *(names.get(index, f"class {index}") for index in range(1, highest + 1)))
    return (
        ("background", "foreground")
        if highest == 1
        else ("background", *(f"class {i}" for i in range(1, highest + 1)))
    )


def _listed_classes(config: DataConfig) -> tuple[str, ...] | None:
    """Names in ``classes.txt``, one a line, background first; ``None`` where there is no such file."""
    path = config.folder.expanduser() / "classes.txt"
    if not path.is_file():
        return None
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        return DataConfig(folder=config.folder, classes=tuple(names)).classes
    except (OSError, ValueError) as error:
        raise DataError(f"classes.txt cannot be used. {explain(error)} Correct it, or remove it.") from error


def _one(values: set[float | None]) -> float | None:
    """Return the only value there is, or ``None``."""
    return values.pop() if len(values) == 1 else None


def _limited(tiles: Sequence[Tile], config: DataConfig) -> tuple[Tile, ...]:
    """At most ``limit`` tiles, drawn evenly and always the same."""
    if config.limit is None or len(tiles) <= config.limit:
        return tuple(tiles)
    drawn = sorted(tiles, key=lambda tile: stable_hash(config.seed, "limit", tile.name))[: config.limit]
    return tuple(sorted(drawn, key=lambda tile: tile.name))
