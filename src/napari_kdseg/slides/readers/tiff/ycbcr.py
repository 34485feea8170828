"""YCbCr to RGB with the integer arithmetic of libjpeg, for the JPEG 2000 of Aperio that keeps its colours apart.

OpenSlide rounds the same way, so that pixels are equal whoever reads them.
"""

from __future__ import annotations

import numpy as np

_CHROMA = np.arange(256, dtype=np.int32) - 128
_HALF, _ONE = 1 << 15, 1 << 16
_RED_CR = (round(1.402 * _ONE) * _CHROMA + _HALF) >> 16
_BLUE_CB = (round(1.772 * _ONE) * _CHROMA + _HALF) >> 16
_GREEN_CR = -round(0.714136286 * _ONE) * _CHROMA
_GREEN_CB = -round(0.344136286 * _ONE) * _CHROMA + _HALF


def ycbcr_to_rgb(pixels: np.ndarray) -> np.ndarray:
    """Convert uint8 ``[h, w, 3]``."""
    luma, blue, red = pixels[..., 0].astype(np.int32), pixels[..., 1], pixels[..., 2]
    out = np.empty(pixels.shape, np.int32)
    out[..., 0] = luma + _RED_CR[red]
    out[..., 1] = luma + ((_GREEN_CB[blue] + _GREEN_CR[red]) >> 16)
    out[..., 2] = luma + _BLUE_CB[blue]
    return np.clip(out, 0, 255).astype(np.uint8)
