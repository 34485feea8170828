"""The metadata of OME-Zarr 0.4 and 0.5 (https://ngff.openmicroscopy.org/0.5), as plain dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from napari_kdseg.slides.geometry import layer_transform

VERSION = "0.5"
Pair = tuple[float, float]
Colour = tuple[int, int, int]


def multiscales(
    name: str,
    downsamples: Sequence[Pair],
    mpp: Pair | None,
    *,
    channels: bool = False,
    kind: str | None = None,
    version: str = VERSION,
) -> list[dict[str, Any]]:
    """Describe a pyramid that lies on a slide.

    Parameters
    ----------
    name
        Name of the image.
    downsamples
        ``(y, x)`` of every level against level 0 of the slide.
    mpp
        Micrometres a pixel of the slide's level 0; without one the unit is the level-0 pixel.
    channels
        Whether there is a channel axis before ``y`` and ``x``.
    kind
        How coarser levels were made (``"mode"``, ``"mean"``).
    version
        Of OME-Zarr: 0.4 says it here, 0.5 beside it.

    Returns
    -------
    list of dict
        The value of ``multiscales``. Translations carry the half pixel: the centre of a coarse pixel is not that of
        the first fine pixel in it.
    """
    space: dict[str, Any] = {"type": "space"} if mpp is None else {"type": "space", "unit": "micrometer"}
    axes = [{"name": "y", **space}, {"name": "x", **space}]
    leading = [1.0] if channels else []
    datasets = []
    for level, downsample in enumerate(downsamples):
        scale, translate = layer_transform(downsample, mpp)
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [*leading, *map(float, scale)]},
                    {"type": "translation", "translation": [*(0.0 for _ in leading), *map(float, translate)]},
                ],
            }
        )
    image: dict[str, Any] = {
        "name": name,
        "axes": [{"name": "c", "type": "channel"}, *axes] if channels else axes,
        "datasets": datasets,
    }
    if version != VERSION:
        image["version"] = version
    return [image if kind is None else {**image, "type": kind}]


def image_label(classes: Sequence[str], colours: Sequence[Colour]) -> dict[str, Any]:
    """Describe the values of a label image: class names and colours; background is transparent."""
    return {
        "colors": [
            {"label-value": value, "rgba": [*map(int, colour), 0 if value == 0 else 255]}
            for value, colour in enumerate(colours)
        ],
        "properties": [{"label-value": value, "class": name} for value, name in enumerate(classes)],
        "source": {"image": "../../"},
    }


def rgb_channels() -> dict[str, Any]:
    """Describe three channels as red, green and blue, so that any viewer shows the overview in its colours."""
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    colours = {"red": "FF0000", "green": "00FF00", "blue": "0000FF"}
    return {
        "channels": [
            {"label": name, "color": colour, "window": window, "active": True}
            for name, colour in colours.items()
        ]
    }
