"""Boundary Transform (BT): swap pixels between the inner rim of a lesion and its inside.

PLC-KD, Wang et al., MICCAI 2024, sect. 2.3 and fig. 2: rim pixels that look like background move inside,
where their surroundings give them away, and easy pixels move to the rim. Labels stay as they are.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def boundary_transform(
    image: Tensor,
    target: Tensor,
    *,
    width: int,
    fraction: float,
    start: Literal["edge", "contour"] = "edge",
    generator: torch.Generator | None = None,
    ignore_index: int = 255,
) -> Tensor:
    """Return X': each lesion's boundary and inner pixels exchanged in random pairs.

    For every image and foreground class ``c`` with mask Y: ``I = erode(Y, width)``, ``B = Y and not I`` (with
    ``start="contour"`` one pixel more is eroded),
    ``n = floor(fraction * min(|B|, |I|))`` pixels of each are chosen without replacement, paired at random
    and swapped.

    Parameters
    ----------
    image
        ``[N, D, H, W]``; not changed.
    target
        ``[N, H, W]`` integer classes, 0 = background; not changed, and still right for the image returned.
    width
        Width of the boundary band in pixels, the paper's delta, not given there.
    start
        Where the width is counted from. ``"edge"``: the line between lesion and background, so that the band is
        ``width`` pixels wide. ``"contour"``: the outermost pixels of the lesion, which belong to the band as well,
        so that it is ``width + 1`` pixels wide.
    fraction
        Share rho of the smaller region that is swapped; the paper says "an equal number of pixels" only.
    generator
        CPU random generator.
    ignore_index
        Label of pixels that are not annotated; they are never moved.

    Returns
    -------
    Tensor
        ``[N, D, H, W]``, a new tensor. Background pixels are untouched, and so is an image without a lesion
        or with lesions too thin to have an inside.

    Notes
    -----
    Decided here, as the paper is silent: with more classes each is swapped within itself, so that labels stay
    right; all lesions of one class in an image form one region; where ``width`` leaves no inside, it shrinks
    until one is left (a lesion two pixels wide stays as it is).

    The paper detects "the boundaries" and dilates them "to expand delta pixels towards the interior". Whether the
    boundary is the line around the lesion or its outermost pixels is not said: delta or delta + 1 pixels. We take the
    line, so that delta is the width of the band.
    """
    width += start == "contour"
    transformed = image.clone()
    for n, labels in enumerate(target):
        flat = transformed[n].flatten(1)  # a view: swapping in it changes ``transformed``
        known = labels != ignore_index
        for c in labels[known].unique().tolist():
            if c == 0:
                continue
            band, inner = boundary_and_inner(labels == c, ~known, width)
            _swap(flat, band, inner, fraction, generator)
    return transformed


def boundary_and_inner(lesion: Tensor, unknown: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Split a lesion into its boundary band and its inner region.

    Parameters
    ----------
    lesion
        ``[H, W]`` bool.
    unknown
        ``[H, W]`` bool: pixels that are not annotated. A lesion that meets them, or the edge of the image,
        may well go on there, so neither makes a boundary.
    width
        Wanted width of the band in pixels, measured as a square (Chebyshev distance); less where the lesion
        is thin.

    Returns
    -------
    band, inner : Tensor
        ``[H, W]`` bool, disjoint, together the lesion. ``inner`` is empty if the lesion has no inside at
        width 1, and ``band`` is empty if the lesion has no contour in this image.
    """
    extended = lesion | unknown
    for margin in range(width, 0, -1):
        inner = lesion & _erode(extended, margin)
        if inner.any():
            break
    return lesion & ~inner, inner


def _erode(mask: Tensor, margin: int) -> Tensor:
    """Keep the pixels whose whole ``(2 margin + 1)`` square is in the mask; beyond the edge the mask goes on."""
    outside = (~mask).to(torch.float32)[None, None]
    outside = F.pad(outside, (margin,) * 4, mode="replicate")
    side = 2 * margin + 1
    outside = F.max_pool2d(F.max_pool2d(outside, (side, 1), stride=1), (1, side), stride=1)
    return outside[0, 0] == 0


def _swap(
    flat: Tensor, band: Tensor, inner: Tensor, fraction: float, generator: torch.Generator | None
) -> None:
    """Swap ``floor(fraction * min(|band|, |inner|))`` random pairs of columns of ``flat [D, H * W]``, in place."""
    rim, inside = band.flatten().nonzero().squeeze(1), inner.flatten().nonzero().squeeze(1)
    pairs = math.floor(fraction * min(len(rim), len(inside)) + 1e-9)  # 0.29 * 100 is 28.999... in binary
    if pairs == 0:
        return
    rim = rim[torch.randperm(len(rim), generator=generator)[:pairs].to(rim.device)]
    inside = inside[torch.randperm(len(inside), generator=generator)[:pairs].to(inside.device)]
    flat[:, rim], flat[:, inside] = flat[:, inside], flat[:, rim]
