"""Whether a network fits a slide, and at which resolution it is to see it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.masks.reduction import NOT_COMPUTED
from napari_kdseg.networks import NetworkSpec
from napari_kdseg.slides import Slide

Pair = tuple[float, float]
#: A level this close to what is wanted is read as it is, which is faster than resampling and loses no sharpness.
TOLERANCE = 0.05
MOST_ENLARGED = 20
"""A slide enlarged further is 400 times its pixels and more, of which none shows anything."""


@dataclass(frozen=True)
class Resolution:
    """Where on the pyramid a prediction lies.

    Attributes
    ----------
    downsample
        ``(y, x)`` against level 0 of the slide.
    notes
        Sentences for the person who waits for the result; empty if all went as expected.
    """

    downsample: Pair
    notes: tuple[str, ...] = ()


def choose_resolution(slide: Slide, asked_mpp: float | None, model_mpp: float | None) -> Resolution:
    """Choose the downsample of a prediction.

    Parameters
    ----------
    slide
        Its ``mpp`` may be unknown.
    asked_mpp
        What a person asked for, in micrometres a pixel.
    model_mpp
        What the network was trained at.

    Returns
    -------
    Resolution
        Level 0 when either side is unknown: a pixel size is never guessed.

    Raises
    ------
    ConfigurationError
        If the slide would be enlarged beyond sense.
    """
    wanted = asked_mpp if asked_mpp is not None else model_mpp
    if wanted is None:
        return Resolution(
            (1.0, 1.0),
            (
                "The model does not say at which pixel size it was trained, so it sees the slide at full resolution.",
            ),
        )
    if slide.mpp is None:
        doubt = f"{slide.scale_doubt} " if slide.scale_doubt else ""
        return Resolution(
            (1.0, 1.0),
            (
                f"The slide has no pixel size, so the model, made for {wanted:g} µm/px, sees it at full resolution. "
                f"{doubt}Enter the pixel size of the slide to match them.",
            ),
        )
    exact = (wanted / slide.mpp[0], wanted / slide.mpp[1])
    for level in slide.levels:
        if all(abs(have / want - 1) <= TOLERANCE for have, want in zip(level.downsample, exact, strict=True)):
            return Resolution((float(level.downsample[0]), float(level.downsample[1])))
    if min(exact) < 1 / MOST_ENLARGED:
        raise ConfigurationError(
            f"The slide ({slide.mpp[0]:g} µm/px) would be enlarged {1 / min(exact):.0f}-fold for a model of {wanted:g} "
            "µm/px, which shows it nothing. Check both pixel sizes."
        )
    if min(exact) < 1 - TOLERANCE:
        return Resolution(
            exact,
            (
                f"The slide ({slide.mpp[0]:g} µm/px) is coarser than the model wants ({wanted:g} µm/px), so it is "
                "enlarged; expect less than the model's usual quality.",
            ),
        )
    return Resolution(exact)


def check_network_fits(slide: Slide, spec: NetworkSpec, checkpoint: Path) -> None:
    """Refuse a network that cannot see this slide, or whose classes do not fit a mask.

    Raises
    ------
    ConfigurationError
        In plain words.
    SlideError
        If a person has to say first what the numbers of the slide mean.
    """
    slide.check_decided()
    if spec.in_channels != slide.channels or np.dtype(slide.dtype) != np.uint8:
        raise ConfigurationError(
            f"{checkpoint.name} expects 8-bit images with {spec.in_channels} channels; the slide {slide.name} has "
            f"{slide.channels} of type {np.dtype(slide.dtype)}. Choose a network made for such slides"
            + (
                ", or, if it is a picture in colours, read it as RGB (?as=rgb)."
                if slide.channels == 3
                else "."
            )
        )
    if len(spec.classes) > NOT_COMPUTED:
        raise ConfigurationError(
            f"{checkpoint.name} has {len(spec.classes)} classes; a mask can hold at most {NOT_COMPUTED}."
        )
