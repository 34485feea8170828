"""Colours as the scanner meant them: the ICC profile of a slide applied, to sRGB, with LittleCMS.

Stored values of two scanners mean different colours; a screen shows sRGB. Nothing is converted silently:
networks see the stored values, in training and in prediction alike, unless a person says otherwise.
"""

from __future__ import annotations

import io
from functools import partial
from typing import Literal

import numpy as np
from PIL import Image, ImageCms

from napari_kdseg.errors import SlideError
from napari_kdseg.slides.slide import Slide

Colours = Literal["stored", "srgb"]
PROBE_STEP = 17
"""Every 17th value of each channel: 16 a channel, 4096 colours to tell whether a profile changes anything."""


def with_colours(slide: Slide, colours: Colours) -> Slide:
    """Return ``slide`` as it is stored, or :func:`in_srgb`."""
    return in_srgb(slide) if colours == "srgb" else slide


def in_srgb(slide: Slide) -> Slide:
    """Return the slide converted from its ICC profile to sRGB, lazily.

    The rendering intent is the profile's own. Associated pictures stay as they are: their profile is another.

    Raises
    ------
    SlideError
        If the slide has no profile that can be applied.
    """
    return slide.mapped(partial(convert, _transform(slide)), name=slide.name)


def profile_name(slide: Slide) -> str | None:
    """Return the name that the slide's ICC profile gives itself, or ``None`` if it has none that can be read."""
    profile = _profile(slide)
    if profile is None:
        return None
    return (
        ImageCms.getProfileDescription(profile) or ImageCms.getProfileName(profile)
    ).strip() or "unnamed profile"


def changes_colours(slide: Slide) -> bool:
    """Tell whether applying the profile would change any colour by more than two grey values: that of sRGB does not."""
    steps = np.arange(0, 256, PROBE_STEP, dtype=np.uint8)
    probe = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(64, 64, 3)
    after = convert(_transform(slide), probe)
    return int(np.abs(after.astype(int) - probe).max()) > 2


def convert(transform: ImageCms.ImageCmsTransform, pixels: np.ndarray) -> np.ndarray:
    """Apply a transform to uint8 ``[h, w, 3]``."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(ImageCms.applyTransform(image, transform))


def _transform(slide: Slide) -> ImageCms.ImageCmsTransform:
    profile = _profile(slide)
    if profile is None:
        raise SlideError(
            "This slide has no colour profile that can be applied. It is shown with the colours that are stored."
        )
    try:
        return ImageCms.buildTransform(
            profile, _srgb(), "RGB", "RGB", ImageCms.Intent(ImageCms.getDefaultIntent(profile))
        )
    except ImageCms.PyCMSError as error:
        raise SlideError(
            f"The colour profile of this slide cannot be applied: {error}. It is shown with the stored colours."
        ) from error


def _profile(slide: Slide) -> ImageCms.ImageCmsProfile | None:
    """Return the profile if it is one of RGB colours and can be read."""
    if slide.icc is None or slide.channels != 3 or slide.dtype != np.uint8:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(slide.icc))
    except (OSError, ImageCms.PyCMSError):  # a damaged profile is none
        return None
    return profile if profile.profile.xcolor_space.strip() == "RGB" else None


def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
