"""Connective tissue: fibres with clefts, muscle, fat, and the cells in all of it."""

from __future__ import annotations

import numpy as np

from napari_kdseg.synthetic.histology import MUCOSA_ABOVE, MUSCLE_BELOW, Region
from napari_kdseg.synthetic.nuclei import Nuclei, seen
from napari_kdseg.synthetic.texture import Texture, step

FAT_CELL_UM = 62.0


class Stroma:
    """Lays down what lies between the glands."""

    def __init__(self, nuclei: Nuclei):
        self._nuclei = nuclei

    def lay(self, at: np.ndarray, region: Region, texture: Texture, stains: np.ndarray) -> None:
        """Lay down what lies between the glands: fibres with clefts, muscle, fat, and the cells in all of it."""
        layer, tumour = region.layer.ravel()[at], region.tumour.ravel()[at]
        loose, patches = texture.loose[at], texture.patches[at]
        mucosa = np.maximum(step(layer, MUCOSA_ABOVE - 0.08, MUCOSA_ABOVE + 0.08), step(tumour, 0.4, 0.9))
        muscle = step(-layer, -MUSCLE_BELOW - 0.03, -MUSCLE_BELOW + 0.03) * (1 - mucosa)
        across, along = texture.fibre_axes(at)
        grain = texture.grain(at)
        fibres = texture.noise(across, along, 2.7, 24.0)
        bundles = texture.noise(across + 511, along + 97, 9.5, 64.0)
        # between glands the fibres are a net without direction
        bundles += mucosa * 0.85 * (texture.net[at] * 1.6 - bundles)
        fibres *= 1 - 0.5 * mucosa
        # clefts open along the zero lines of the bundles, wider where the tissue is loose
        open_ = 0.16 + 0.3 * step(loose + patches * 0.4, -0.1, 0.9)
        if muscle.any():
            open_ *= 1 - 0.7 * muscle
        cleft = 1 - step(np.abs(bundles + 0.25 * fibres), open_ * 0.5, open_ + 0.18)
        if texture.pixel > 6:
            cleft = np.full_like(loose, 0.3)
        eosin = 0.5 + 0.07 * fibres + 0.07 * bundles + 0.035 * grain
        eosin += 0.16 * muscle - 0.12 * mucosa + 0.05 * patches
        eosin *= 1 - cleft * (0.85 - 0.35 * muscle)
        # tissue shrinks away from glands in places
        halo = np.exp(-(((region.depth.ravel()[at] + 3.5) * 0.45) ** 2))
        eosin *= 1 - halo * step(loose, -0.1, 0.7) * 0.75
        haematoxylin = 0.05 + 0.04 * loose + 0.03 * grain + 0.05 * mucosa
        stains[0][at], stains[1][at] = haematoxylin, eosin
        self._cells(at, (across, along), (mucosa, muscle, loose, patches, grain), texture, stains)
        self._fat(at, layer, mucosa, texture, stains)

    def _cells(
        self,
        at: np.ndarray,
        fibre_axes: tuple[np.ndarray, np.ndarray],
        fields: tuple[np.ndarray, ...],
        texture: Texture,
        stains: np.ndarray,
    ) -> None:
        """Put spindle cells along the fibres, lymphocytes and plasma cells between the glands, in swarms or alone."""
        mucosa, muscle, loose, patches, grain = fields
        swarm = step(patches, 0.62, 0.95)
        chance = 0.015 + mucosa * (0.30 + 0.3 * patches + 0.18 * loose)
        chance = np.clip(np.maximum(chance, swarm * 0.92), 0, 0.92) * (1 - muscle)
        visible = seen(texture.pixel)
        if visible < 1:  # the mean of the nuclei painted below
            stains[0][at] += (1 - visible) * (0.022 + 0.012 * muscle + chance * 0.2)
        if visible > 0:
            share = 0.42 + 0.2 * muscle
            spindle = (
                self._nuclei.scattered(*fibre_axes, (9.0, 23.0), (1.8, 7.6), share, salt=101, rough=grain)
                * 0.62
            )
            y, x = texture.y[at], texture.x[at]
            round_ = self._nuclei.scattered(
                y + 0.31 * x,
                x - 0.31 * y,
                (10.4, 10.4),
                (2.6, 3.3),
                chance,
                salt=211,
                turned=True,
                rough=grain,
            )
            # a second lattice athwart the first lets nuclei touch and overlap
            more = self._nuclei.scattered(
                y - 0.57 * x,
                x + 0.57 * y,
                (11.2, 11.2),
                (2.5, 3.4),
                chance,
                salt=5211,
                turned=True,
                rough=grain,
            )
            round_ = np.maximum(round_, more) * 0.86
            nuclei = np.maximum(spindle, round_) * (1 + 0.13 * grain)
            stains[0][at] += nuclei * visible
            stains[1][at] += (round_ > 0) * 0.05

    def _fat(
        self, at: np.ndarray, layer: np.ndarray, mucosa: np.ndarray, texture: Texture, stains: np.ndarray
    ) -> None:
        """Replace some of the loose tissue by fat: empty cells in a honeycomb of thin walls."""
        ragged = texture.patches[at] * 0.25 + texture.loose[at] * 0.02 + texture.net[at] * 0.006
        lobule = step(ragged - layer, 0.50, 0.506) * step(ragged + layer, -0.565, -0.559)
        lobule *= mucosa < 0.3
        here = np.flatnonzero(lobule > 0)
        if not len(here):
            return
        at, lobule = at[here], lobule[here]
        wall = _honeycomb(
            texture.y[at] + texture.loose[at] * 22 + texture.bend_x[at] * 0.8,
            texture.x[at] - texture.patches[at] * 60 + texture.bend_y[at] * 0.8,
            FAT_CELL_UM,
        )
        rim = 1 - step(wall, 0.2, 1.4 + texture.pixel / 2)
        if texture.pixel > 8:
            rim = np.full_like(wall, 0.1)
        for stain, amount in ((0, 0.09), (1, 0.38)):
            below = stains[stain][at]
            stains[stain][at] = below + lobule * (rim * np.float32(amount) + 0.01 - below)


def _honeycomb(y: np.ndarray, x: np.ndarray, size: float) -> np.ndarray:
    """Distance in micrometres to the nearest wall of hexagons ``size`` wide."""
    tall = np.float32(size * np.sqrt(3))
    wide = np.float32(size)
    nearest = np.zeros(len(y), np.float32)
    for shift in (0, 0.5):
        v = (y / tall + shift) % 1 - 0.5
        u = (x / wide + shift) % 1 - 0.5
        v, u = np.abs(v) * tall, np.abs(u) * wide
        inside = wide / 2 - np.maximum(u, u * 0.5 + v * np.float32(np.sqrt(3) / 2))
        np.maximum(nearest, inside, out=nearest)
    return nearest
