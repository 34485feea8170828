"""Glands and vessels: epithelium with its nuclei, goblet cells and lumen; walls of muscle around blood."""

from __future__ import annotations

import numpy as np

from napari_kdseg.synthetic.histology import TUMOUR, VESSEL, Region
from napari_kdseg.synthetic.nuclei import Nuclei, seen
from napari_kdseg.synthetic.texture import Texture, either, step


class Glands:
    """Lays down what sits in the cells of the lattice."""

    def __init__(self, nuclei: Nuclei):
        self._nuclei = nuclei

    def lay(self, at: np.ndarray, region: Region, texture: Texture, stains: np.ndarray) -> None:
        """Put glands and vessels over the stroma, in place."""
        kind = region.cells["kind"].take(region.cell.ravel()[at])
        vessel = kind == VESSEL
        for chosen, paint in ((at[~vessel], self._glands), (at[vessel], self._vessels)):
            if not len(chosen):
                continue
            depth = region.depth.ravel()[chosen]
            amounts = paint(chosen, depth, region, texture)
            edge = np.float32(0.6 + texture.pixel / 2)
            cover = step(depth, -edge, edge)
            for stain, amount in zip(stains, amounts, strict=True):
                below = stain[chosen]
                stain[chosen] = below + cover * (amount - below)

    def _glands(
        self, at: np.ndarray, depth: np.ndarray, region: Region, texture: Texture
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Epithelium around a lumen: goblet cells full of mucus, or the crowded cells of a tumour."""
        cell, pixel = region.cell.ravel()[at], texture.pixel
        malignant = region.cells["kind"].take(cell) == TUMOUR
        radius, number = region.cells["radius"].take(cell), region.cells["number"].take(cell)
        dy, dx = region.dy.ravel()[at], region.dx.ravel()[at]
        grain, loose = texture.grain(at), texture.loose[at]
        # from hardly any lumen to a wide one
        share = either(malignant, 0.5, 0.58) + number * either(malignant, 0.25, 0.34)
        wall = np.maximum(radius * share, 21) + loose * either(malignant, 12, 7)
        np.minimum(wall, radius * 0.93, out=wall)
        apical = step(depth, 11, 20)
        h = either(malignant, 0.34, 0.27) - either(malignant, 0.03, 0.10) * apical + 0.03 * grain
        e = (
            either(malignant, 0.36, 0.36)
            + either(malignant, 0.04, 0.02) * apical
            + 0.03 * grain
            + 0.04 * texture.net[at]
        )
        wavy = loose * 0.5 + texture.net[at] * 0.15
        mucus = np.zeros_like(h)
        if not malignant.all():
            mucus = self._goblets(depth + loose * 3, dy, dx, wavy, number, radius, wall, pixel) * ~malignant
            h += mucus * (0.12 + 0.02 * grain - h)
            e += mucus * (0.09 + 0.015 * grain - e)
        visible = seen(pixel)
        if visible < 1:
            row = step(depth, -2, 3) * (1 - step(depth, either(malignant, 26, 8), either(malignant, 40, 13)))
            h += (1 - visible) * row * either(malignant, 0.32, 0.38)
        if visible > 0:
            basal = np.flatnonzero((depth > -1) & (depth < either(malignant, 36, 15)))
            h[basal] += visible * self._epithelium(
                basal, depth, (dy, dx, number, radius, malignant), loose, grain
            )
        # lumen, and holes within the epithelium of a tumour
        soft = np.float32(1.3 + pixel / 2)
        lumen = step(depth, wall - soft, wall + soft)
        if malignant.any():
            holes = malignant * step(loose + 0.04 * grain, 0.74, 0.95) * step(depth, 14, 22)
            np.maximum(lumen, holes, out=lumen)
        debris = step(loose + 0.14 * grain, -0.1, 1.5) * either(malignant, 1.0, 0.25)
        brush = np.exp(-(((depth - wall + 2) * (1 / (1.3 + pixel))) ** 2)) * np.float32(0.14 / (1 + pixel))
        h += lumen * (0.015 + 0.16 * debris - h)
        e += lumen * (0.02 + 0.26 * debris - e) + brush * (1 - mucus)
        return h, e, np.zeros_like(h)

    def _epithelium(
        self,
        at: np.ndarray,
        depth: np.ndarray,
        gland: tuple[np.ndarray, ...],
        loose: np.ndarray,
        grain: np.ndarray,
    ) -> np.ndarray:
        """Haematoxylin of two overlapping rows of nuclei."""
        dy, dx, number, radius, malignant = (values[at] for values in gland)
        rough = grain[at]
        uneven = depth[at] + loose[at] * either(malignant, 4.0, 1.6)
        first = self._nuclei.lining(uneven, dy, dx, number, radius, malignant, rough, salt=0)
        second = self._nuclei.lining(
            uneven - either(malignant, 3.5, 2.0), dy, dx, number, radius + 3, malignant, rough, salt=29_000
        )
        second *= either(malignant, 0.8, 0.62)
        return np.maximum(first, second) * (either(malignant, 0.62, 0.66) + 0.13 * rough)

    def _goblets(
        self,
        depth: np.ndarray,
        dy: np.ndarray,
        dx: np.ndarray,
        wavy: np.ndarray,
        number: np.ndarray,
        radius: np.ndarray,
        wall: np.ndarray,
        pixel: float,
    ) -> np.ndarray:
        """Mucus of goblet cells in [0, 1]: vacuoles side by side like petals, between the nuclei and the lumen."""
        count = np.floor(radius * 0.33)
        turn = (np.arctan2(dy, dx) * np.float32(0.5 / np.pi) + 0.5) * count + wavy
        which = np.floor(turn) % count
        turn %= count
        chance, other = self._nuclei.draw(number, which)
        border = 0.5 - np.abs(turn - which - 0.5)
        border *= np.float32(2 * np.pi) * np.sqrt(dy * dy + dx * dx) / count
        # the distance to the rim of the vacuole, which is rounded at both ends
        within = np.minimum(border, (depth - 10 - chance * 7) * 0.6)
        np.minimum(within, (wall - depth - other * 4) * 0.7, out=within)
        mucus = step(within, np.float32(0.5 - pixel / 4), np.float32(1.8 + pixel / 4))
        return mucus * (chance < 1.05 - 0.5 * number)

    def _vessels(
        self, at: np.ndarray, depth: np.ndarray, region: Region, texture: Texture
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A wall of muscle, flat nuclei, and red cells where blood is left."""
        cell, pixel = region.cell.ravel()[at], texture.pixel
        radius, number = region.cells["radius"].take(cell), region.cells["number"].take(cell)
        grain = texture.grain(at)
        thick = np.minimum(2.5 + radius * number * 0.4, radius * 0.5)
        lumen = step(depth, thick - (1 + pixel / 2), thick + (1 + pixel / 2))
        h = 0.12 + 0.04 * grain
        e = 0.55 + 0.08 * grain + 0.1 * texture.loose[at]
        visible = seen(pixel)
        h += 0.1 * (1 - visible)
        filled = step(texture.loose[at] * 0.5 + number, 0.4, 0.6) * lumen
        cells = np.full_like(h, 0.8)
        if visible > 0:
            dy, dx = region.dy.ravel()[at], region.dx.ravel()[at]
            around = np.arctan2(dy, dx) * radius
            flat = self._nuclei.scattered(depth, around, (5.0, 13.0), (1.3, 4.5), 0.4, salt=7)
            h += flat * visible * 0.6
            cells = cells * (1 - visible) + visible * (
                self._nuclei.scattered(
                    texture.y[at] * 0.9 + texture.x[at] * 0.44 + texture.net[at] * 2,
                    texture.x[at] * 0.9 - texture.y[at] * 0.44,
                    (7.2, 7.2),
                    (2.9, 3.2),
                    0.95,
                    salt=5,
                    turned=True,
                )
                * 0.42
                + 0.5
                + 0.12 * grain
            )
        h += lumen * (0.01 - h)
        e += lumen * (0.03 - e)
        return h, e, filled * cells
