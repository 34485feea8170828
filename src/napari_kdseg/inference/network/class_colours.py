"""Colours of classes: those of the checkpoint, else Okabe-Ito's, which colour-blind people can tell apart."""

from __future__ import annotations

from napari_kdseg.networks import NetworkSpec

Colour = tuple[int, int, int]
#: Okabe & Ito 2008; background is black, and shown transparent.
OKABE_ITO: tuple[Colour, ...] = (
    (0, 158, 115),
    (230, 159, 0),
    (86, 180, 233),
    (204, 121, 167),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
)


def class_colours(spec: NetworkSpec) -> tuple[Colour, ...]:
    """Return one ``(r, g, b)`` for each class of a network, background first."""
    if spec.colours is not None:
        return tuple(_from_hex(colour) for colour in spec.colours)
    foreground = (OKABE_ITO[index % len(OKABE_ITO)] for index in range(len(spec.classes) - 1))
    return ((0, 0, 0), *foreground)


def _from_hex(colour: str) -> Colour:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
