"""What the numbers in the pixels mean: the one place, for every reader, where that is decided.

A picture in colours becomes 8-bit RGB; channels keep their numbers; grey has one value a pixel. What cannot be known
is not guessed in silence: it is shown in the likeliest way, and :attr:`Meaning.doubt` keeps its numbers from being used
until a person has said what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.address import Asked, Kind
from napari_kdseg.slides.readers.meaning.numbers import (
    ASSOCIATED,
    COLOURS,
    Convert,
    chain,
    luma,
    on_white,
    through_palette,
    to_8_bits,
)
from napari_kdseg.slides.readers.meaning.stored import COLOUR_SAMPLES, RGB, TITLES, Stored
from napari_kdseg.slides.readers.meaning.white import Look, largest, white_of

DARK = 60
"""RGB whose median brightest channel is below this is fluorescence: H&E lies far above, on tissue too."""


@dataclass(frozen=True)
class Meaning:
    """What is made of the numbers.

    Attributes
    ----------
    kind
        ``"rgb"``, ``"channels"`` or ``"grey"``.
    channels, dtype, names
        Of the pixels that are made.
    convert
        Makes them of what is stored; ``None`` where they are the same.
    brightfield
        ``None``: RGB if the ground is bright (:func:`is_bright`), else channels of fluorescence.
    words
        What was decided and why, in a line.
    doubt
        What a person has to say before the numbers are used; empty if nothing.
    white
        The stored value that became 255, where numbers were scaled.
    """

    kind: Kind
    channels: int
    dtype: np.dtype
    names: tuple[str, ...]
    convert: Convert | None = None
    brightfield: bool | None = False
    words: str = ""
    doubt: str = ""
    white: float | None = None

    def facts(self) -> dict[str, Any]:
        """Return what it says of the metadata of a slide, by the names there."""
        return {
            "channels": self.channels,
            "dtype": self.dtype,
            "channel_names": self.names,
            "brightfield": self.brightfield,
            "kind": self.kind,
            "read_as": self.words,
            "doubt": self.doubt,
            "white": self.white,
        }


def decide(stored: Stored, asked: Asked, look: Look) -> Meaning:
    """Decide what the numbers of an image mean.

    Parameters
    ----------
    stored
        What the file says.
    asked
        What a person says, which goes before.
    look
        Gives a few tiles as they are stored; called only where what the file says is not enough.

    Raises
    ------
    SlideError
        If what a person asks for cannot be made of these samples.
    """
    kind = asked.kind or _kind(stored)
    if kind == "rgb":
        return _rgb(stored, asked, look)
    return _grey(stored, asked, look) if kind == "grey" else _channels(stored, asked, look)


def is_bright(tiles: Sequence[np.ndarray], least: float = DARK) -> bool:
    """Tell whether tiles show a bright ground, as that of light falling through tissue: their median is at least so."""
    return bool(np.median(np.concatenate([tile.max(axis=2).ravel() for tile in tiles])) >= least)


def _kind(stored: Stored) -> Kind:
    if stored.unread:
        return "channels"
    if stored.colours in COLOUR_SAMPLES and stored.coloured == COLOUR_SAMPLES[stored.colours]:
        return "channels" if stored.colours == "rgb" and stored.named else "rgb"
    if stored.colours == "grey" and stored.coloured == 1:
        return "grey"
    three = stored.colours == "grey" and stored.samples == 3 and not stored.inverted
    unsaid = three and not stored.named and stored.dtype == np.uint8 and stored.depth == 8
    return "rgb" if unsaid or (three and stored.named_rgb) else "channels"


# -- pictures in colours -------------------------------------------------------------------------------------------


def _rgb(stored: Stored, asked: Asked, look: Look) -> Meaning:
    pick = _pick_colours(stored)
    white, why, doubt = white_of(stored, asked, look)
    alpha, words = stored.opacity, [f"RGB{_origin(stored)}{why}"]
    if stored.colours in TITLES:
        scale = None if stored.dtype == np.uint8 else partial(to_8_bits, white=white)
        convert = chain(_first(COLOUR_SAMPLES[stored.colours], stored), scale, COLOURS[stored.colours])
    elif stored.colours == "palette" and stored.palette is not None:
        convert = through_palette(stored.palette)
    elif alpha is not None and stored.coloured in (1, 3):
        multiplied = stored.extra[alpha - stored.coloured] == ASSOCIATED
        convert = chain(
            partial(_composited, stored=stored, alpha=alpha, white=white, multiplied=multiplied), pick
        )
        words.append(f"transparent parts on white{' (colours multiplied already)' if multiplied else ''}")
    else:
        plain = stored.dtype == np.uint8 and white == 255
        flip = partial(_flip, top=255) if stored.inverted else None
        convert = chain(pick, None if plain else partial(to_8_bits, white=white), flip)
    left_out = stored.samples - len(_picked(stored)) - (alpha is not None)
    if left_out:
        words.append(
            f"{left_out} further sample{'s' if left_out > 1 else ''} not said to be opacity, left out"
        )
    if stored.colours == "grey" and asked.kind is None and not stored.named_rgb:
        words.append(f"{stored.samples} channels without names taken for red, green and blue")
    if doubt:
        words.append(doubt)
    scaled = white if stored.colours in ("rgb", "grey") and white != 255 else None
    bright = None if asked.kind is None else True
    return Meaning("rgb", 3, np.dtype(np.uint8), RGB, convert, bright, "; ".join(words), doubt, scaled)


def _picked(stored: Stored) -> range:
    return range(COLOUR_SAMPLES.get(stored.colours, 1 if stored.coloured == 1 else 3))


def _pick_colours(stored: Stored) -> Convert | None:
    """Return what makes three samples of those that are coloured: one three times, or the first three.

    Raises
    ------
    SlideError
        If there are two.
    """
    if stored.colours in TITLES or stored.colours == "palette":
        return None
    if stored.coloured == 2:
        raise SlideError("This slide has 2 channels; a picture in colours has 3. Read it as channels.")
    if stored.coloured == 1:
        return lambda pixels: np.repeat(pixels[..., :1], 3, axis=2)
    return _first(3, stored)


def _first(count: int, stored: Stored) -> Convert | None:
    return None if stored.samples == count else lambda pixels: pixels[..., :count]


def _composited(
    pixels: np.ndarray, *, stored: Stored, alpha: int, white: float, multiplied: bool
) -> np.ndarray:
    colours = pixels[..., : stored.coloured]
    if stored.inverted:
        colours = _flip(colours, stored.top)
    return on_white(colours, pixels[..., alpha : alpha + 1], white, multiplied=multiplied)


def _origin(stored: Stored) -> str:
    """Say of what RGB is made."""
    if stored.colours == "palette":
        return f" from a palette ({stored.depth} bit)"
    if stored.colours in TITLES:
        return f" from {TITLES[stored.colours]}"
    return ", of one grey value" if stored.coloured == 1 else ""


# -- grey and channels ---------------------------------------------------------------------------------------------


def _grey(stored: Stored, asked: Asked, look: Look) -> Meaning:
    """One value a pixel: stored, or the brightness of colours."""
    if stored.coloured != 1 or stored.colours == "palette":
        colours = _rgb(stored, Asked(kind="rgb", white=asked.white), look)
        said = f"grey, the brightness of {colours.words}"
        steps = chain(colours.convert, luma)
        return Meaning(
            "grey", 1, np.dtype(np.uint8), ("grey",), steps, False, said, colours.doubt, colours.white
        )
    name = stored.names[0] if stored.names and stored.named else "grey"
    words = [f"grey, {stored.depth} bit{', 0 is white' if stored.inverted else ''}"]
    if stored.opacity is not None and stored.dtype.kind == "u":
        multiplied = stored.extra[0] == ASSOCIATED
        compose = partial(_composited, stored=stored, alpha=1, white=stored.top, multiplied=multiplied)
        words.append(f"transparent parts on white{', in 8 bits' if stored.depth != 8 else ''}")
        return Meaning("grey", 1, np.dtype(np.uint8), (name,), compose, False, "; ".join(words))
    first = _first(1, stored)
    if first is not None:
        words.append("further samples left out")
    if stored.pages:
        words.append("if its three pages are red, green and blue, read it as RGB (?as=rgb)")
    scale, doubt = None, ""
    if stored.depth < 8:
        scale = _widened(stored)
        words[0] += f" x {255 // int(stored.top)}"
    if stored.inverted and stored.dtype.kind == "f":
        doubt = "0 is white in it, and the file does not say which value is black"
        words.append(doubt)
    invert = _inverted(stored) if not doubt else None
    dtype = np.dtype(np.uint8) if stored.dtype == np.bool_ else stored.dtype
    return Meaning("grey", 1, dtype, (name,), chain(first, invert, scale), False, "; ".join(words), doubt)


def _channels(stored: Stored, asked: Asked, look: Look) -> Meaning:
    """Return the numbers as they are stored; only 0 that is white is turned round, and bits become bytes."""
    said = {index: name.strip() for index, name in enumerate(stored.names)}
    names = tuple(said.get(index) or f"channel {index + 1}" for index in range(stored.samples))
    words = [f"{_count(stored.samples)}, {stored.depth} bit"]
    if asked.kind is None and stored.samples == 3 and not stored.unread and _is_bright_three(stored, look):
        words.append("on a bright ground: if it is a picture in colours, read it as RGB (?as=rgb)")
    doubt = ""
    if stored.unread and asked.kind is None:
        doubt = f"its colours are {stored.unread}, which is not read here"
        words.append(doubt)
    steps = chain(_inverted(stored), _widened(stored) if stored.dtype == np.bool_ else None)
    dtype = np.dtype(np.uint8) if stored.dtype == np.bool_ else stored.dtype
    return Meaning("channels", stored.samples, dtype, names, steps, False, "; ".join(words), doubt)


def _is_bright_three(stored: Stored, look: Look) -> bool:
    """Tell whether three channels have a bright ground; of more than 8 bits, half as bright as the largest value."""
    tiles = look()
    found = largest(stored, tiles)
    return bool(tiles) and found > 0 and is_bright(tiles, DARK if stored.dtype == np.uint8 else found / 2)


def _widened(stored: Stored) -> Convert:
    """Return what spreads 1, 2 or 4 bits over 8, as every viewer does."""
    factor = 255 // int(stored.top)
    return lambda pixels: pixels.astype(np.uint8) * np.uint8(factor)


def _inverted(stored: Stored) -> Convert | None:
    return partial(_flip, top=stored.top) if stored.inverted and stored.dtype.kind in "ub" else None


def _flip(pixels: np.ndarray, top: float) -> np.ndarray:
    return ~pixels if pixels.dtype == np.bool_ else pixels.dtype.type(top) - pixels


def _count(number: int) -> str:
    return "1 channel" if number == 1 else f"{number} channels"
