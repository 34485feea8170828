"""The look of an invented tissue under haematoxylin and eosin.

Amounts of the two stains, and of blood, are laid down structure by structure and turned into light by the law of Beer
and Lambert, with the stain vectors of Ruifrok and Johnston (Anal. Quant. Cytol. Histol. 2001) made a little warmer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_kdseg.synthetic.glands import Glands
from napari_kdseg.synthetic.histology import Tissue
from napari_kdseg.synthetic.noise import hash_unit, lattice_noise
from napari_kdseg.synthetic.nuclei import Nuclei
from napari_kdseg.synthetic.stroma import Stroma
from napari_kdseg.synthetic.texture import Texture, step

GLASS = (244, 243, 245)
HAEMATOXYLIN = (0.64, 0.72, 0.30)
EOSIN = (0.10, 0.90, 0.37)
BLOOD = (0.05, 0.78, 0.66)


@dataclass(frozen=True)
class StainBatch:
    """How strongly, and in which hues, a laboratory stained: another batch looks like another laboratory.

    Attributes
    ----------
    haematoxylin, eosin
        Strength, 1 for batch 0.
    vectors
        Optical density of haematoxylin, eosin and blood in red, green and blue.
    """

    haematoxylin: float = 1.0
    eosin: float = 1.0
    vectors: tuple[tuple[float, float, float], ...] = (HAEMATOXYLIN, EOSIN, BLOOD)

    @classmethod
    def number(cls, batch: int) -> StainBatch:
        """Draw a batch; 0 is the standard one."""
        if batch == 0:
            return cls()
        draw = hash_unit(batch, np.arange(8)).astype(float) * 2 - 1
        blueish = (
            HAEMATOXYLIN[0] + 0.10 * draw[2],
            HAEMATOXYLIN[1] + 0.08 * draw[3],
            HAEMATOXYLIN[2] + 0.1 * draw[4],
        )
        pinkish = EOSIN[0] + 0.05 * draw[5], EOSIN[1] + 0.06 * draw[6], EOSIN[2] + 0.14 * draw[7]
        return cls(1 + 0.3 * draw[0], 1 + 0.3 * draw[1], (blueish, pinkish, BLOOD))


class Stain:
    """Paint regions of a tissue."""

    def __init__(self, tissue: Tissue, batch: int = 0):
        self.tissue = tissue
        self.seed = tissue.seed
        self._batch = StainBatch.number(batch)
        nuclei = Nuclei(self.seed)
        self._stroma, self._glands = Stroma(nuclei), Glands(nuclei)

    def amounts(self, y: np.ndarray, x: np.ndarray, pixel: float) -> np.ndarray | None:
        """Lay down the stains at the positions ``y [h]`` and ``x [w]``, for pixels ``pixel`` wide, all in micrometres.

        Returns
        -------
        np.ndarray or None
            Amounts of haematoxylin, eosin and blood, float32 ``[3, h * w]``; ``None`` where there is only glass.
        """
        inside = self.tissue.tissue(y, x)
        if inside.max() < -2 * pixel:
            return None
        region = self.tissue.region(y, x, inside)
        texture = Texture(self.seed, y, x, region, pixel)
        stains = np.zeros((3, inside.size), np.float32)
        depth, there = region.depth.ravel(), inside.ravel() > -pixel
        stroma = np.flatnonzero(there & (depth < 2 + pixel))
        if len(stroma):
            self._stroma.lay(stroma, region, texture, stains)
        glands = np.flatnonzero(there & (depth > -3 - pixel))
        if len(glands):
            self._glands.lay(glands, region, texture, stains)
        # stain varies slowly over the slide, gathers at the edge of the tissue, and ends there
        edge = step(inside, 0, 2.5 + pixel) * (
            1 + np.float32(0.3) * np.exp(np.maximum(inside, 0) * np.float32(-1 / 25))
        )
        drift = 1 + lattice_noise(self.seed + 61, y, x, 2500.0) * np.float32(0.18)
        stains[0] *= (edge * drift).ravel()
        stains[2] *= edge.ravel()
        edge *= 1 + lattice_noise(self.seed + 62, y, x, 1800.0) * np.float32(0.2)
        stains[1] *= edge.ravel()
        return stains

    def light(self, stains: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray:
        """Turn amounts of stain into colours, uint8 ``[h, w, 3]``."""
        out = np.empty((*shape, 3), np.uint8)
        if stains is None:
            out[:] = GLASS
            return out
        batch = self._batch
        blue, pink, red = batch.vectors
        bloody = bool(stains[2].any())
        for channel, glass in enumerate(GLASS):
            density = stains[0] * np.float32(-1.9 * batch.haematoxylin * blue[channel])
            density -= stains[1] * np.float32(0.95 * batch.eosin * pink[channel])
            if bloody:
                density -= stains[2] * np.float32(red[channel])
            np.exp(density, out=density)
            density *= glass
            np.minimum(density, 255, out=density)
            out[..., channel] = density.reshape(shape)
        return out
