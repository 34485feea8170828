"""Nuclei of an invented tissue: scattered through the stroma, and lined up around glands; no two quite alike."""

from __future__ import annotations

import numpy as np

from napari_kdseg.synthetic.noise import hash_unit
from napari_kdseg.synthetic.texture import either

TABLE = 1 << 16
LAST = np.int32(TABLE - 1)
OUTER = np.float32(1.08)
"""Where the soft rim of a nucleus ends, its half axis being 1."""

VISIBLE_UM = (1.6, 3.2)
"""Pixel sizes between which single nuclei fade into the mean colour of their tissue."""


def seen(pixel: float) -> np.float32:
    """Say how much of single nuclei is seen at a pixel size in micrometres."""
    near, far = VISIBLE_UM
    return np.float32(np.clip((far - pixel) / (far - near), 0, 1))


class Nuclei:
    """Draws nuclei from a table of random numbers of its own."""

    def __init__(self, seed: int):
        self._random = hash_unit(seed + 71, np.arange(TABLE))
        self._cosine = np.cos(np.pi * self._random)
        self._sine = np.sin(np.pi * self._random)

    def scattered(
        self,
        v: np.ndarray,
        u: np.ndarray,
        cell: tuple[float, float],
        size: tuple[float, float],
        share: np.ndarray | float,
        *,
        salt: int,
        turned: bool = False,
        rough: np.ndarray | None = None,
    ) -> np.ndarray:
        """Scatter oval nuclei, at most one to a cell of a lattice.

        Parameters
        ----------
        v, u
            Positions in micrometres, ``[n]``.
        cell, size
            Height and width of a lattice cell, and half height and half width of the largest nucleus.
        share
            Chance that a cell holds one.
        salt
            Another number scatters others.
        turned
            Whether each points its own way; otherwise all lie along ``u``.
        rough
            Noise that makes outlines irregular.

        Returns
        -------
        np.ndarray
            Darkness in [0, 1.2], float32 ``[n]``.
        """
        sv, su = v * np.float32(1 / cell[0]), u * np.float32(1 / cell[1])
        row, column = np.floor(sv), np.floor(su)
        index = row.astype(np.int32) * 31153
        index += column.astype(np.int32) * 2039
        index += salt
        index &= LAST
        out = np.zeros(len(v), np.float32)
        at = np.flatnonzero(self._random.take(index) < share)  # most positions have no nucleus in their cell
        index = index[at]
        first, second = (self._random.take((index + k) & LAST) for k in (17011, 43013))
        reach = (max(size), max(size)) if turned else size
        play = [1 - 2 * min(1.25 * half / side, 0.45) for half, side in zip(reach, cell, strict=True)]
        half = np.float32(0.5)
        dv = (sv[at] - row[at] - half - (first - half) * np.float32(play[0])) * np.float32(cell[0])
        du = (su[at] - column[at] - half - (second - half) * np.float32(play[1])) * np.float32(cell[1])
        if turned:
            way = (index + 5003) & LAST
            cosine, sine = self._cosine.take(way), self._sine.take(way)
            dv, du = dv * cosine - du * sine, dv * sine + du * cosine
        dv *= np.float32(1 / size[0])
        du *= np.float32(1 / size[1])
        oval = np.sqrt(dv * dv + du * du) * (np.float32(1.6) - first * np.float32(0.68))
        if rough is not None:
            oval += rough[at] * np.float32(0.07)
        out[at] = _shade(oval, second)
        return out

    def draw(self, number: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Two random numbers in [0, 1) for the cell ``which`` of the gland ``number``."""
        index = (number * TABLE + which * 331).astype(np.int32) & LAST
        return self._random.take(index), self._random.take((index + 9001) & LAST)

    def lining(
        self,
        depth: np.ndarray,
        dy: np.ndarray,
        dx: np.ndarray,
        number: np.ndarray,
        radius: np.ndarray,
        malignant: np.ndarray,
        rough: np.ndarray,
        *,
        salt: int,
    ) -> np.ndarray:
        """Line nuclei up around glands: one basal row of tall ones, or in a tumour up to four crowded rows.

        Parameters
        ----------
        depth, dy, dx
            Micrometres inside the outline, and from the centre, ``[n]``.
        number, radius, malignant
            Of the gland at each position.
        rough
            Noise that makes outlines irregular.
        salt
            Another number lines up others, half a nucleus further.

        Returns
        -------
        np.ndarray
            Darkness in [0, 1.2], float32 ``[n]``.
        """
        half = np.float32(0.5)
        height = either(malignant, 8.6, 10.5)
        row = np.floor(depth / height)
        count = np.floor(radius * either(malignant, 0.72, 0.9))
        turn = (np.arctan2(dy, dx) * np.float32(0.5 / np.pi) + half) * count + row * half
        which = np.floor(turn)
        index = (number * TABLE + which * 77 + row * 1013 + salt).astype(np.int32) & LAST
        first, second, third = (self._random.take((index + k) & LAST) for k in (0, 13613, 27299))
        pitch = np.float32(2 * np.pi) * np.sqrt(dy * dy + dx * dx) / count
        aside = (turn - which - half + (first - half) * np.float32(0.3)) * pitch
        deep = depth - (row + half) * height + 1 - (second - half) * either(malignant, 4.0, 4.6)
        # some lean over
        aside += deep * (third - half) * np.float32(0.5)
        deep /= either(malignant, 4.6, 4.8) * (np.float32(0.75) + third * np.float32(0.4))
        wide = np.minimum(either(malignant, 3.4, 2.7), pitch * half)
        aside /= wide * (np.float32(0.75) + first * np.float32(0.4))
        oval = np.sqrt(deep * deep + aside * aside)
        oval += rough * np.float32(0.06)
        there = (row >= 0) & (row < either(malignant, 4, 1)) & (third < either(malignant, 0.9, 0.95))
        return _shade(oval, second) * there


def _shade(oval: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Darkness over the distance from the centre, the rim being 1; a part of them lies out of focus, pale and soft."""
    out = np.zeros_like(oval)
    at = np.flatnonzero(oval < OUTER)
    oval = oval[at]
    soft = np.float32(0.14) + np.float32(0.4) * np.maximum(chance[at] - np.float32(0.55), 0)
    t = (OUTER - oval) / (soft + soft)
    np.minimum(t, 1, out=t)
    t *= t * (3 - 2 * t)
    out[at] = t * (np.float32(1.08) - np.float32(0.5) * soft - np.float32(0.22) * (1 - oval))
    return out
