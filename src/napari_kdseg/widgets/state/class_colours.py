"""One colour a class, in every mask and view: by its name, not by its number in some network.

A person's choice counts first and is kept. Otherwise the first mask that has the class says; where its colour is
another class's already, the first of Okabe and Ito's that is free is taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from napari_kdseg.colours import CLASSES, as_hex
from napari_kdseg.colours import class_colour as of_index
from napari_kdseg.widgets.state.remembered import recall, remember

KEY = "class_colours"
Given = tuple[Sequence[str], Sequence[Any] | None]
"""Classes of a mask, background first, and their colours, ``(r, g, b)`` or ``"#rrggbb"``, if it brings any."""


def chosen_colours() -> dict[str, str]:
    """Colours that a person chose, by name of the class."""
    return {str(name): str(colour) for name, colour in json.loads(recall(KEY) or "{}").items()}


def choose_colour(name: str, colour: str | None) -> None:
    """Give the class this colour, ``"#rrggbb"``, from now on; ``None``: that of the masks again."""
    chosen = chosen_colours()
    if colour is None:
        chosen.pop(name, None)
    else:
        chosen[name] = colour
    remember(KEY, json.dumps(chosen))


def palette(masks: Iterable[Given]) -> dict[str, str]:
    """Return the colour of every class of these masks but the background, ``"#rrggbb"`` by name."""
    chosen = chosen_colours()
    found: dict[str, str] = {}
    for classes, colours in masks:
        for index, name in enumerate(classes):
            if index and name not in found:
                taken = {*found.values(), *(chosen[other] for other in classes if other in chosen)}
                found[name] = chosen.get(name) or _free(_given(index, colours), taken)
    return found


def _given(index: int, colours: Sequence[Any] | None) -> str:
    if not colours or index >= len(colours):
        return as_hex(of_index(index))
    colour = colours[index]
    return colour.lower() if isinstance(colour, str) else as_hex(colour)


def _free(colour: str, taken: set[str]) -> str:
    """``colour`` unless another class has it; when all are taken, two share it."""
    return next((one for one in (colour, *map(as_hex, CLASSES)) if one not in taken), colour)
