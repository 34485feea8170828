"""The look of an invented tissue under haematoxylin and eosin.

Amounts of the two stains are laid down structure by structure and turned into light by the law of Beer and Lambert,
with the stain vectors of Ruifrok and Johnston (Anal. Quant. Cytol. Histol. 2001) made a little warmer.
"""

from __future__ import annotations

import numpy as np

from napari_kdseg.slides.histology import TUMOUR, VESSEL, Region, Tissue
from napari_kdseg.slides.noise import hash_unit, lattice_noise, look_up, noise_table

GLASS = (244, 243, 245)
HAEMATOXYLIN = (0.62, 0.72, 0.31)
EOSIN = (0.09, 0.93, 0.36)
NUCLEI_VISIBLE_UM = (1.6, 3.2)
"""Pixel sizes between which nuclei fade into the mean colour of their tissue."""


class Stain:
    """Paint regions of a tissue."""

    def __init__(self, tissue: Tissue):
        self.tissue = tissue
        self.seed = tissue.seed
        self._random = hash_unit(self.seed + 71, np.arange(4096))

    def paint(self, y: np.ndarray, x: np.ndarray, pixel: float) -> np.ndarray:
        """Colours at the positions ``y [h]`` and ``x [w]`` in micrometres, for pixels ``pixel`` micrometres wide.

        Returns
        -------
        np.ndarray
            uint8 ``[h, w, 3]``.
        """
        inside = self.tissue.tissue(y, x)
        if inside.max() < -2 * pixel:
            out = np.empty((*inside.shape, 3), np.uint8)
            out[:] = GLASS
            return out
        region = self.tissue.region(y, x, inside)
        texture = _Texture(self.seed, y, x, region, pixel)
        haematoxylin, eosin = self._stroma(texture, pixel)
        self._structures(region, texture, pixel, (haematoxylin, eosin))
        # stain varies slowly over the slide, and thins out at the edge of the tissue
        there = _step(inside, 0, 3 + pixel)
        haematoxylin *= there * (1 + lattice_noise(self.seed + 61, y, x, 2500.0) * np.float32(0.22))
        eosin *= there * (1 + lattice_noise(self.seed + 62, y, x, 1800.0) * np.float32(0.25))
        return _light(haematoxylin, eosin)

    def _stroma(self, texture: _Texture, pixel: float) -> tuple[np.ndarray, np.ndarray]:
        """Lay down connective tissue: wavy fibres with clefts, spindle nuclei and swarms of lymphocytes."""
        eosin = 0.52 + 0.13 * texture.fibres + 0.035 * texture.grain
        eosin *= 1 - 0.8 * _step(texture.loose, 0.3, 1.1) * _step(texture.fibres, -0.2, 0.8)
        haematoxylin = 0.05 + 0.03 * texture.loose + 0.02 * texture.grain
        swarm = _step(texture.patches, 0.6, 1.0)
        seen = _seen(pixel)
        if seen < 1:  # the mean of the nuclei painted below
            haematoxylin += np.float32(1 - seen) * (0.07 + swarm * 0.42)
        if seen > 0:
            spindle = self._scattered(
                texture.along, texture.across, (24.0, 11.0), (6.8, 1.7), np.float32(0.55), 101
            )
            haematoxylin += spindle * (0.72 + 0.1 * texture.grain) * np.float32(seen)
            at = np.flatnonzero(swarm)
            if len(at):
                y, x = texture.y.ravel()[at], texture.x.ravel()[at]
                y, x = y + np.float32(0.31) * x, x - np.float32(0.31) * y
                chance = swarm.ravel()[at] * np.float32(0.9)
                dots = self._scattered(y, x, (8.6, 8.6), (3.1, 3.1), chance, 211) * (
                    0.92 + 0.08 * texture.grain.ravel()[at]
                )
                flat = haematoxylin.reshape(-1)
                flat[at] = np.maximum(flat[at], dots * np.float32(seen))
        return haematoxylin, eosin

    def _structures(
        self, region: Region, texture: _Texture, pixel: float, stains: tuple[np.ndarray, np.ndarray]
    ) -> None:
        """Put glands and vessels over the stroma, in place."""
        at = np.flatnonzero(region.depth > -3 - pixel)
        if not len(at):
            return
        depth = region.depth.ravel()[at]
        cell = region.place.ravel()[at]
        kind, radius = region.cells["kind"].take(cell), region.cells["radius"].take(cell)
        grain, loose, fibres = (
            values.ravel()[at] for values in (texture.grain, texture.loose, texture.fibres)
        )
        malignant, vessel = kind == TUMOUR, kind == VESSEL
        wall = np.minimum(_either(malignant, 27, 23) + loose * 4, radius * np.float32(0.72))
        np.minimum(wall, 7, out=wall, where=vessel)
        apical = _step(depth, wall * np.float32(0.45), wall * np.float32(0.8))
        # cytoplasm: paler towards the lumen, with mucin in benign glands
        h = _either(malignant, 0.30, 0.23) - _either(malignant, 0, 0.11) * apical + grain * 0.03
        e = _either(malignant, 0.42, 0.40) + _either(malignant, 0.05, -0.17) * apical + grain * 0.05
        seen = np.float32(_seen(pixel))
        if seen < 1:
            h += (1 - seen) * (_either(malignant, 0.5, 0.38) - _either(malignant, 0.18, 0.38) * apical)
        if seen > 0:
            lined = np.flatnonzero((depth > 0) & (depth < wall))
            nuclei = self._epithelial_nuclei(
                region, at[lined], depth[lined] + loose[lined] * 2, malignant[lined]
            )
            h[lined] += nuclei * seen * (_either(malignant[lined], 0.72, 0.66) + 0.16 * grain[lined])
        np.copyto(h, 0.10, where=vessel)
        np.copyto(e, 0.72 + 0.1 * fibres, where=vessel)
        # lumen: nearly empty, some secretion or debris; blood in vessels
        lumen = _step(depth, wall - (1.2 + pixel / 2), wall + (1.2 + pixel / 2))
        secretion = _step(loose + 0.15 * grain, 0.35, 1.0)
        h += lumen * (0.02 + 0.05 * secretion * malignant - h)
        e += lumen * (0.03 + 0.2 * secretion + 0.75 * vessel * _step(grain, -0.1, 0.5) - e)
        cover = _step(depth, -0.6 - pixel / 2, 0.6 + pixel / 2)
        membrane = np.exp(-(((depth + 1.2) * (1 / (1.2 + pixel))) ** 2)) * (0.16 / (1 + pixel))
        for stain, amount in zip(stains, (h, e), strict=True):
            flat = stain.reshape(-1)
            below = flat[at]
            flat[at] = below + cover * (amount - below) + (membrane if stain is stains[1] else 0)

    def _epithelial_nuclei(
        self, region: Region, at: np.ndarray, depth: np.ndarray, malignant: np.ndarray
    ) -> np.ndarray:
        """Line nuclei up around the gland: one basal row of tall ones, or in a tumour up to three crowded rows."""
        cell = region.place.ravel()[at]
        radius, number = region.cells["radius"].take(cell), region.cells["number"].take(cell)
        dy, dx = region.dy.ravel()[at], region.dx.ravel()[at]
        height = _either(malignant, 9.2, 11.0)
        row = np.floor(depth / height)
        count = np.floor(radius * _either(malignant, 0.86, 0.98))
        turn = (np.arctan2(dy, dx) * np.float32(0.5 / np.pi) + np.float32(0.5)) * count + row * np.float32(
            0.5
        )
        which = np.floor(turn)
        index = (number + which * 7 + row * 1013).astype(np.int32) & 4095
        first, second, third = (self._random.take((index + k) & 4095) for k in (0, 1361, 2729))
        pitch = np.float32(2 * np.pi) * np.sqrt(dy * dy + dx * dx) / count
        aside = (turn - which - np.float32(0.5) + (first - np.float32(0.5)) * np.float32(0.2)) * pitch
        deep = (
            depth
            - (row + np.float32(0.5)) * height
            - (second - np.float32(0.5)) * _either(malignant, 2.2, 3.4)
        )
        long = _either(malignant, 3.9, 4.6) * (np.float32(0.85) + third * np.float32(0.3))
        wide = np.minimum(_either(malignant, 3.1, 2.6), pitch * np.float32(0.46)) * (
            np.float32(0.8) + first * np.float32(0.3)
        )
        oval = np.sqrt((deep / long) ** 2 + (aside / wide) ** 2)
        there = (row >= 0) & (row < _either(malignant, 3, 1)) & (third < np.float32(0.96))
        return _nucleus(oval) * there

    def _scattered(
        self,
        v: np.ndarray,
        u: np.ndarray,
        cell: tuple[float, float],
        size: tuple[float, float],
        share: np.ndarray | np.float32,
        salt: int,
    ) -> np.ndarray:
        """Scatter oval nuclei, at most one to a lattice cell, with a chance of ``share`` each; darkness in [0, 1]."""
        sv, su = v * np.float32(1 / cell[0]), u * np.float32(1 / cell[1])
        row, column = np.floor(sv), np.floor(su)
        index = (row.astype(np.int32) * 157 + column.astype(np.int32) * 2039 + salt) & 4095
        first = self._random.take(index)
        second = self._random.take((index + 1777) & 4095)
        third = self._random.take((index + 3001) & 4095)
        play = [1 - 2 * min(half / side, 0.45) for half, side in zip(size, cell, strict=True)]
        dv = (sv - row - np.float32(0.5) - (first - np.float32(0.5)) * np.float32(play[0])) * np.float32(
            cell[0] / size[0]
        )
        du = (su - column - np.float32(0.5) - (second - np.float32(0.5)) * np.float32(play[1])) * np.float32(
            cell[1] / size[1]
        )
        oval = np.sqrt(dv * dv + du * du) * (np.float32(1.25) - first * np.float32(0.35))
        return _nucleus(oval) * (third < share)


class _Texture:
    """Noise fields that several structures share, each faded out where its features are smaller than a pixel.

    ``along`` and ``across`` are coordinates that follow the fibres; ``y`` and ``x`` plain ones. They start
    again every 26 cm, which is longer than any slide, so that float32 stays fine enough.
    """

    PERIOD_UM = 262_144.0

    def __init__(self, seed: int, y: np.ndarray, x: np.ndarray, region: Region, pixel: float):
        table = noise_table(seed)
        self.y = (y % self.PERIOD_UM).astype(np.float32)[:, None] + region.warp_y * np.float32(0.25)
        self.x = (x % self.PERIOD_UM).astype(np.float32)[None] + region.warp_x * np.float32(0.25)
        self.along = self.x * np.float32(0.8) + self.y * np.float32(0.6) + region.warp_x * 2
        self.across = self.y * np.float32(0.8) - self.x * np.float32(0.6) + region.warp_y * 2
        self.fibres = self._at(table, self.across, self.along, 3.1, 42.0, pixel)
        self.fibres += np.float32(0.8) * self._at(table, self.across + 511, self.along, 8.3, 90.0, pixel)
        self.loose = lattice_noise(seed + 52, y, x, 34.0) if pixel < 24 else np.zeros_like(self.fibres)
        self.grain = self._at(table, self.x, self.y, 1.5, 1.5, pixel)
        self.patches = lattice_noise(seed + 51, y, x, 210.0)

    @staticmethod
    def _at(
        table: np.ndarray, v: np.ndarray, u: np.ndarray, fine: float, long: float, pixel: float
    ) -> np.ndarray:
        weight = np.float32(np.clip(1.6 * fine / pixel - 0.6, 0, 1))
        if weight == 0:
            return np.zeros(v.shape, np.float32)
        return look_up(table, v * np.float32(1 / fine), u * np.float32(1 / long)) * weight


def _seen(pixel: float) -> float:
    """Say how much of single nuclei is seen at a pixel size."""
    near, far = NUCLEI_VISIBLE_UM
    return float(np.clip((far - pixel) / (far - near), 0, 1))


def _either(condition: np.ndarray, yes: float, no: float) -> np.ndarray:
    return np.where(condition, np.float32(yes), np.float32(no))


def _step(values: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    """Rise smoothly from 0 at ``low`` to 1 at ``high``."""
    t = np.clip((values - low) / (high - low), 0, 1).astype(np.float32, copy=False)
    return t * t * (3 - 2 * t)


def _nucleus(oval: np.ndarray) -> np.ndarray:
    """Darkness over the distance from the centre, the rim being 1: a soft rim, a little paler within."""
    return (1 - _step(oval, 0.72, 1.12)) * (np.float32(0.82) + np.float32(0.18) * np.minimum(oval, 1))


def _light(haematoxylin: np.ndarray, eosin: np.ndarray) -> np.ndarray:
    np.clip(haematoxylin, 0, 1.6, out=haematoxylin)
    np.clip(eosin, 0, 1.6, out=eosin)
    out = np.empty((*eosin.shape, 3), np.uint8)
    for channel, (h, e, glass) in enumerate(zip(HAEMATOXYLIN, EOSIN, GLASS, strict=True)):
        density = haematoxylin * np.float32(-1.9 * h)
        density -= eosin * np.float32(0.95 * e)
        np.exp(density, out=density)
        density *= glass
        out[..., channel] = density
    return out
