"""Colours of classes: those of the checkpoint, else Okabe-Ito's, which colour-blind people can tell apart."""

from __future__ import annotations

from napari_kdseg.colours import BLACK, Colour, class_colour, from_hex
from napari_kdseg.networks import NetworkSpec


def class_colours(spec: NetworkSpec) -> tuple[Colour, ...]:
    """Return one ``(r, g, b)`` for each class of a network, background first."""
    if spec.colours is not None:
        return tuple(from_hex(colour) for colour in spec.colours)
    return (BLACK, *(class_colour(index) for index in range(1, len(spec.classes))))
