"""What goes wrong between the bench and the scanner: folds of the tissue, pen on the glass, fields out of focus, dust.

None of it moves the ground truth. Each is a function of position alone, like the tissue itself, and costs nothing where
it is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_kdseg.synthetic.histology import Tissue
from napari_kdseg.synthetic.noise import hash_unit, lattice_noise
from napari_kdseg.synthetic.texture import step

INKS = ((38, 74, 148), (22, 112, 82), (42, 42, 48))
BLUR_UM = 2.6
"""Standard deviation of the blur where it is worst."""

MOST_BENT_UM = 40.0
"""How far the edge of a fold strays from its line."""

Part = tuple[slice, slice]
FOLDS_PER_PIECE, SMALLEST_PIECE_UM = 2, 1200.0


@dataclass(frozen=True)
class Line:
    """A gently curved line on the slide: from its middle along a direction, in micrometres."""

    y: float
    x: float
    angle: float
    half_length: float
    half_width: float
    bow: float

    def distance(self, y: np.ndarray, x: np.ndarray) -> np.ndarray | None:
        """How far inside the line's edge each position is, float32 ``[h, w]``; ``None`` where none is near it."""
        reach = self.half_length + self.half_width + abs(self.bow)
        if y[0] > self.y + reach or y[-1] < self.y - reach or x[0] > self.x + reach or x[-1] < self.x - reach:
            return None
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        dy, dx = (y - self.y).astype(np.float32)[:, None], (x - self.x).astype(np.float32)
        along = dx * np.float32(cosine) + dy * np.float32(sine)
        aside = dy * np.float32(cosine) - dx * np.float32(sine)
        part = along * np.float32(1 / self.half_length)
        aside -= (1 - part * part) * np.float32(self.bow)
        beyond = np.maximum(np.abs(along) - np.float32(self.half_length), 0)
        return np.float32(self.half_width) - np.sqrt(aside * aside + beyond * beyond)


class Folds:
    """Where the tissue lies double. The upper layer is tissue from some way off, so both can be painted."""

    def __init__(self, tissue: Tissue):
        self.seed = tissue.seed
        self._lines = [
            _draw(tissue.seed + 200 + 10 * number + k, piece, (0.16, 0.5), (14, 42))
            for number, piece in enumerate(tissue.pieces)
            for k in range(FOLDS_PER_PIECE)
            if min(piece[2:]) > SMALLEST_PIECE_UM
        ]

    def cover(self, y: np.ndarray, x: np.ndarray) -> Iterator[tuple[Part, np.ndarray, tuple[float, float]]]:
        """Yield each fold in sight: a part of the grid, how much of the upper layer lies there, its shift (y, x)."""
        for line in self._lines:
            inside = line.distance(y, x)
            near = None if inside is None else _bounds(inside > -MOST_BENT_UM)
            if inside is None or near is None:
                continue
            there = y[near[0]], x[near[1]]
            bent = inside[near] + lattice_noise(self.seed + 91, *there, 160.0) * 26
            bent += lattice_noise(self.seed + 92, *there, 40.0) * 5
            shift = -170 * float(np.cos(line.angle)), 170 * float(np.sin(line.angle))
            yield near, step(bent, 0, 2.5), shift


class Pen:
    """Strokes of a felt-tip pen on the cover glass, around and beside the tissue."""

    def __init__(self, tissue: Tissue):
        self.seed = tissue.seed
        draw = hash_unit(tissue.seed + 300, np.arange(2))
        self._ink = np.array(INKS[int(draw[0] * len(INKS))], np.float32) / 255
        self._strokes = []
        for number, (cy, cx, ay, ax) in enumerate(tissue.pieces):
            if hash_unit(tissue.seed + 301, number)[()] > 0.5 or min(ay, ax) < 2 * SMALLEST_PIECE_UM:
                continue
            side = 1 if hash_unit(tissue.seed + 302, number)[()] < 0.5 else -1
            edge = (cy + side * 0.92 * ay, cx, ay, ax)
            self._strokes += [
                _draw(tissue.seed + 310 + 10 * number + k, edge, (0.35, 0.6), (150, 260), turn=0.5)
                for k in range(2)
            ]

    def draw(self, y: np.ndarray, x: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """Draw over ``pixels``, uint8 ``[h, w, 3]``; returned unchanged where there is no ink."""
        ink = None
        for stroke in self._strokes:
            inside = stroke.distance(y, x)
            if inside is None or inside.max() < -60:
                continue
            ink = inside if ink is None else np.maximum(ink, inside)
        if ink is None:
            return pixels
        ink += lattice_noise(self.seed + 93, y, x, 320.0) * 45 + lattice_noise(self.seed + 94, y, x, 60.0) * 9
        if ink.max() <= 0:
            return pixels
        # ink gathers at the edge of a stroke and is streaky within
        amount = step(ink, 0, 22) * (
            np.float32(0.8) + np.float32(0.35) * np.exp(np.maximum(ink, 0) * np.float32(-1 / 30))
        )
        amount *= 1 + np.float32(0.12) * lattice_noise(self.seed + 95, y, x, 26.0)
        density = np.log(self._ink + np.float32(0.02)) * np.float32(0.75)
        return (pixels * np.exp(np.maximum(amount, 0)[..., None] * density)).astype(np.uint8)


class Focus:
    """Fields that the scanner had out of focus."""

    def __init__(self, tissue: Tissue):
        self.seed = tissue.seed

    def blur(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """How blurred each position is, float32 ``[h, w]`` from 0 (sharp) to 1."""
        return step(lattice_noise(self.seed + 96, y, x, 1700.0), 0.88, 1.2)

    @staticmethod
    def apply(pixels: np.ndarray, blur: np.ndarray, pixel: float) -> np.ndarray:
        """Blur ``pixels``, uint8 ``[h, w, 3]``: between sharp and two blurred pictures, by ``blur [h, w]``."""
        sharp = pixels.astype(np.float32)
        sigma = BLUR_UM / pixel
        half = gaussian_filter(sharp, (sigma / 2, sigma / 2, 0), truncate=2.5)
        full = gaussian_filter(sharp, (sigma, sigma, 0), truncate=2.5)
        first = np.minimum(blur * 2, 1)[..., None]
        second = np.maximum(blur * 2 - 1, 0)[..., None]
        sharp += first * (half - sharp)
        sharp += second * (full - sharp)
        return sharp.astype(np.uint8)

    @staticmethod
    def margin(pixel: float) -> int:
        """Pixels around a region that its blur reaches to."""
        return int(2.5 * BLUR_UM / pixel + 1)


def _bounds(mask: np.ndarray) -> Part | None:
    """Return the smallest rectangle that holds all of ``mask [h, w]``."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _draw(
    seed: int,
    piece: tuple[float, float, float, float],
    length: tuple[float, float],
    width: tuple[float, float],
    *,
    turn: float = np.pi,
) -> Line:
    """Draw a line somewhere on a piece of tissue, its half length a share of that of the piece."""
    cy, cx, ay, ax = piece
    draw = hash_unit(seed, np.arange(7)).tolist()
    short = min(ay, ax)
    half = short * (length[0] + (length[1] - length[0]) * draw[3])
    return Line(
        y=cy + (draw[0] - 0.5) * (ay if turn == np.pi else 0.25 * ay),
        x=cx + (draw[1] - 0.5) * ax,
        angle=(draw[2] - 0.5) * turn,
        half_length=half,
        half_width=width[0] + (width[1] - width[0]) * draw[4],
        bow=half * (draw[5] - 0.5) * 0.8,
    )
