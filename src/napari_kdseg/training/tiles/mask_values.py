"""What the values in masks mean, looked at over all masks of a folder: one mask alone does not tell.

Two things make masks of one folder contradict each other without any of them looking wrong: 255 that is the foreground
in some and "not annotated" in others, and palettes that give one colour different numbers, as programs that reduce
colours write them. Both are refused with what would do.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from napari_kdseg.errors import DataError
from napari_kdseg.training.settings import DataConfig
from napari_kdseg.training.tiles.pictures import PictureError, picture_header, read_mask
from napari_kdseg.training.tiles.tile import listed, refuse

IGNORE = 255
"""The value of a pixel that nobody annotated."""
Values = Mapping[str, set[int]]
"""Those that occur in each mask, by the name of the tile."""
Colour = tuple[int, ...]


def mask_values(
    masks: Mapping[str, Path], check: Callable[[], None]
) -> tuple[dict[str, set[int]], list[str]]:
    """Read which values occur in each mask.

    Parameters
    ----------
    masks
        By the name of the tile.
    check
        Called once a mask.

    Returns
    -------
    values
        Of each mask.
    messages
        What a person should know of their palettes.

    Raises
    ------
    DataError
        If masks cannot be used, or their palettes contradict each other.
    """
    values: dict[str, set[int]] = {}
    palettes: dict[str, dict[int, Colour]] = {}
    unusable = []
    for name, path in masks.items():
        check()
        try:
            values[name] = {int(value) for value in np.unique(read_mask(path))}
            colours = picture_header(path).colours
        except PictureError as error:
            unusable.append(str(error))
            continue
        if colours is not None:
            known = sorted(value for value in values[name] if value < len(colours))
            palettes[name] = {value: tuple(map(int, colours[value])) for value in known}
    refuse(unusable, "{count} cannot be used: {names}. Replace or remove {them}.", "mask")
    return values, _compared_palettes(palettes)


def _compared_palettes(palettes: Mapping[str, Mapping[int, Colour]]) -> list[str]:
    """Refuse palettes in which a number has two colours, or a colour two numbers in two masks."""
    if not palettes:
        return []
    masks_of: dict[tuple[int, Colour], list[str]] = defaultdict(list)
    for name, palette in palettes.items():
        for value, colour in palette.items():
            masks_of[value, colour].append(name)
    numbers = Counter(value for value, _ in masks_of)
    twice = [pair for pair in masks_of if numbers[pair[0]] > 1 or _has_other_number(pair, masks_of)]
    if not twice:
        meaning = ", ".join(f"{value} is {_hex(colour)}" for value, colour in sorted(masks_of))
        return [f"{len(palettes)} masks are palette pictures, of which the numbers count: {meaning}."]
    told = "; ".join(
        f"{_hex(colour)} is number {value} in {listed(masks_of[value, colour], 'mask')}"
        for value, colour in sorted(twice, key=lambda pair: pair[::-1])[:4]
    )
    raise DataError(
        f"{len(palettes)} masks are palette pictures, and their palettes differ: {told}. The numbers are the classes, "
        "so some mean another class than their colour says. Save the masks with one palette, or as plain class numbers."
    )


def _has_other_number(pair: tuple[int, Colour], masks_of: Mapping[tuple[int, Colour], Sequence[str]]) -> bool:
    """Whether a mask that does not hold the pair has its colour under another number."""
    value, colour = pair
    return any(
        other == colour and number != value and not set(names) <= set(masks_of[pair])
        for (number, other), names in masks_of.items()
    )


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def white_is_class_1(config: DataConfig, values: Values) -> tuple[bool, list[str]]:
    """Decide what 255 means in the masks of a folder.

    Returns
    -------
    white_is_one
        Whether it means class 1. Otherwise it means "not annotated".
    messages
        What a person should know of it.

    Raises
    ------
    DataError
        If some masks hold 0 and 1, others 0 and 255 and none both, and nobody said what is meant.
    """
    used = set().union(*values.values())
    if IGNORE not in used:
        return False, []
    white = [name for name, found in values.items() if IGNORE in found and found <= {0, IGNORE}]
    if config.value_255 == "class_1":
        if used <= {0, 1, IGNORE}:
            return True, [f"The value 255 is taken as class 1, as asked for ({listed(white, 'mask')})."]
        raise DataError(
            f"255 cannot mean class 1, as asked for, where masks hold the classes up to {max(used - {IGNORE})} as "
            "well. Set the value 255 to 'auto' or 'ignored'."
        )
    if config.value_255 == "auto" and used <= {0, IGNORE}:
        return True, []
    ones = [name for name, found in values.items() if 1 in found]
    both = any({1, IGNORE} <= found for found in values.values())
    if config.value_255 == "auto" and used <= {0, 1, IGNORE} and not both:
        raise DataError(
            f"Masks are written in two ways: {listed(ones, 'mask')} with 1, {listed(white, 'mask')} with 255, and none "
            "with both. If 255 is the foreground, save it as 1 or set the value 255 to 'class_1' "
            "(--set data.value_255=class_1); if nobody annotated these pixels, set it to 'ignored'."
        )
    ignoring = sum(IGNORE in found for found in values.values())
    beside = f", {len(white)} of them without any class" if white else ""
    return False, [f"The value 255 occurs in {ignoring} masks and is taken as 'not annotated'{beside}."]


def refuse_values(values: Values, classes: int) -> None:
    """Refuse masks that hold anything but the numbers of classes and 255."""
    extra = {name: sorted(found - {*range(classes), IGNORE}) for name, found in values.items()}
    refuse(
        [f"{name} ({', '.join(map(str, found[:3]))})" for name, found in extra.items() if found],
        f"{{count}} {{has}} values that are none of the {classes} classes 0 to {classes - 1}: {{names}}. "
        "Correct the masks, or name all classes.",
        "mask",
    )
