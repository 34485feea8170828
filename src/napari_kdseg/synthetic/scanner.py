"""What a scanner adds to a slide: its noise, a picture of the label and one of the whole glass."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

NOISE = 1.3
"""Standard deviation of the noise at level 0, in grey values."""

LABEL_SIDE = 400
MACRO_SIZE = (1280, 420)
GLASS_SHARE = 0.66
"""Part of the macro picture, from the right, that is not under the label."""


def label_picture(lines: tuple[str, ...], seed: int) -> np.ndarray:
    """Draw a paper label with a code of squares and some lines of text, uint8 ``[400, 400, 3]``."""
    picture = Image.new("RGB", (LABEL_SIDE, LABEL_SIDE), (250, 249, 244))
    bits = np.random.default_rng(seed).integers(0, 2, (16, 16)).astype(np.uint8)
    bits[0], bits[:, 0] = 1, 1  # a frame on two sides, as such codes have
    code = Image.fromarray((1 - bits) * 250).resize((160, 160), Image.Resampling.NEAREST)
    picture.paste(code.convert("RGB"), (30, 30))
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((30, 220 + 44 * number), line, fill=(40, 40, 48), font_size=30)
    return np.asarray(picture)


def macro_picture(overview: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Lay a small picture of the tissue, uint8 ``[h, w, 3]``, on a slide of glass beside its label."""
    width, height = MACRO_SIZE
    picture = Image.new("RGB", MACRO_SIZE, (222, 224, 226))
    free = int(width * GLASS_SHARE)
    tissue = Image.fromarray(overview)
    tissue.thumbnail((free - 60, height - 60), Image.Resampling.BOX)
    left, top = width - free + (free - tissue.width) // 2, (height - tissue.height) // 2
    glass = Image.new("RGB", tissue.size, (222, 224, 226))
    picture.paste(Image.blend(tissue, glass, 0.12), (left, top))
    side = height - 40
    picture.paste(Image.fromarray(label).resize((side, side), Image.Resampling.BOX), (10, 20))
    return np.asarray(picture)


def with_noise(pixels: np.ndarray, level: int, side: int) -> np.ndarray:
    """Add the noise of the scanner to a tile, uint8 ``[<= side, <= side, 3]``; from level 2 on there is none to see."""
    if level > 1:
        return pixels
    noise = _noise(level, side)[: pixels.shape[0], : pixels.shape[1]]
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


@lru_cache(maxsize=2)
def _noise(level: int, side: int) -> np.ndarray:
    """Noise of one tile, int16 ``[side, side, 3]``: the same in all, which nobody sees in white noise."""
    random = np.random.default_rng(level)
    return np.rint(random.normal(0, NOISE / 2**level, (side, side, 3))).astype(np.int16)
