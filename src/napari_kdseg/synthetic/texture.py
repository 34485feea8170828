"""Noise that the structures of an invented tissue share, in coordinates that follow its fibres."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_kdseg.synthetic.histology import Region
from napari_kdseg.synthetic.noise import lattice_noise, look_up, noise_table

PERIOD_UM = 262_144.0
"""Coordinates start again after 26 cm, longer than any slide, so that float32 stays fine enough."""


class Texture:
    """Coordinates and noise at some of the positions of a region, flat arrays ``[n]``.

    Parameters
    ----------
    seed
        Of the slide.
    y, x
        Positions in micrometres, ``[h]`` and ``[w]``.
    region
        Its geometry.
    pixel
        Width of a pixel in micrometres: noise whose features are smaller fades out.
    """

    def __init__(self, seed: int, y: np.ndarray, x: np.ndarray, region: Region, pixel: float):
        self.pixel = pixel
        self._table = noise_table(seed)
        quarter = np.float32(0.25)
        self.y = ((y % PERIOD_UM).astype(np.float32)[:, None] + region.warp_y * quarter).ravel()
        self.x = ((x % PERIOD_UM).astype(np.float32)[None] + region.warp_x * quarter).ravel()
        self.bend_y, self.bend_x = region.warp_y.ravel(), region.warp_x.ravel()
        shape = region.depth.size
        self.loose = (
            lattice_noise(seed + 52, y, x, 34.0).ravel() if pixel < 24 else np.zeros(shape, np.float32)
        )
        self.net = lattice_noise(seed + 53, y, x, 12.0).ravel() if pixel < 6 else np.zeros(shape, np.float32)
        self.patches = lattice_noise(seed + 51, y, x, 210.0).ravel()

    def fibre_axes(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates across and along the fibres: they sweep around as the tissue is bent."""
        y, x = self.y[at], self.x[at]
        bend = np.float32(1.9)
        along = x * np.float32(0.8) + y * np.float32(0.6) + self.bend_x[at] * bend
        across = y * np.float32(0.8) - x * np.float32(0.6) + self.bend_y[at] * bend
        return across, along

    def noise(self, v: np.ndarray, u: np.ndarray, fine: float, long: float) -> np.ndarray:
        """Noise of features ``fine`` x ``long`` micrometres, standard deviation 1 where they are seen."""
        weight = np.float32(np.clip(1.6 * fine / self.pixel - 0.6, 0, 1))
        if weight == 0:
            return np.zeros(v.shape, np.float32)
        return look_up(self._table, v * np.float32(1 / fine), u * np.float32(1 / long)) * weight

    def grain(self, at: np.ndarray, fine: float = 1.5) -> np.ndarray:
        """Noise without direction."""
        return self.noise(self.x[at], self.y[at], fine, fine)


def step(values: np.ndarray, low: Any, high: Any) -> np.ndarray:
    """Rise smoothly from 0 at ``low`` to 1 at ``high``, each a number or float32 ``[n]``."""
    t = values - low
    t /= high - low
    np.maximum(t, 0, out=t)
    np.minimum(t, 1, out=t)
    rise = np.float32(3) - t - t
    t *= t
    t *= rise
    return t


def either(condition: np.ndarray, yes: float, no: float) -> np.ndarray | np.float32:
    """Choose between two numbers, float32; a single one where the condition holds everywhere or nowhere."""
    if not condition.any():
        return np.float32(no)
    return np.float32(yes) if condition.all() else np.where(condition, np.float32(yes), np.float32(no))
