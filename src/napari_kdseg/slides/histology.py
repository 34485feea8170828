"""Where the glands of an invented tissue lie: geometry from coordinates alone, exact at any magnification.

Tissue pieces are ellipses bent by noise; glands and vessels sit one to a cell of a staggered lattice in coordinates
that are warped at two scales, which makes them irregular and hides the lattice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_kdseg.slides.noise import hash_unit, lattice_noise

BACKGROUND, GLAND, TUMOUR_GLAND = 0, 1, 2
CELL_UM = 190.0
RADIUS_UM = (44.0, 92.0)
GLAND_SHARE, VESSEL_SHARE = 0.78, 0.08
NOTHING, BENIGN, TUMOUR, VESSEL = 0, 1, 2, 3
FAR_UM = np.float32(1e3)


@dataclass
class Region:
    """The geometry of a grid of positions ``[h, w]``; all lengths in micrometres, float32.

    Attributes
    ----------
    tissue
        Distance inside the edge of the tissue; negative on glass.
    depth
        Distance inside the outline of the nearest gland or vessel; negative outside.
    dy, dx
        Position from its centre.
    place
        Which cell of ``cells`` a position lies in.
    cells
        Table of the cells of the lattice: ``kind``, mean ``radius`` and a ``number`` of what sits in each.
    warp_y, warp_x
        How far the coordinates were bent.
    """

    tissue: np.ndarray
    depth: np.ndarray
    dy: np.ndarray
    dx: np.ndarray
    place: np.ndarray
    cells: dict[str, np.ndarray]
    warp_y: np.ndarray
    warp_x: np.ndarray

    def classes(self) -> np.ndarray:
        """Return the ground truth, uint8: background, gland, tumour gland. A gland includes its lumen."""
        kind = self.cells["kind"].take(self.place)
        return np.where((self.depth > 0) & (self.tissue > 0) & (kind <= TUMOUR), kind, np.uint8(BACKGROUND))


class Tissue:
    """An invented slide of ``height`` x ``width`` micrometres."""

    def __init__(self, height: float, width: float, seed: int):
        self.seed = seed
        short, long = sorted((height, width))
        count = 1 if short < 6000 else int(np.clip(round(long / short * 3), 3, 8))
        self._pieces, self._reach = _pieces(height, width, count, seed)
        self._zone = float(np.clip(0.3 * short, 700, 5000))

    def tissue(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Distance inside the tissue, float32 ``[h, w]``, at the positions ``y [h]`` and ``x [w]`` in micrometres."""
        nearest = np.full((len(y), len(x)), 16.0, np.float32)
        for cy, cx, ay, ax in self._pieces:
            down = (((y - cy) / ay) ** 2).astype(np.float32)
            across = (((x - cx) / ax) ** 2).astype(np.float32)
            if down.min() + across.min() < 4:
                np.minimum(nearest, down[:, None] + across, out=nearest)
        reach = self._reach
        if nearest.min() > 4:  # farther than any noise below reaches
            return np.full_like(nearest, -FAR_UM)
        inside = (1 - np.sqrt(nearest)) * np.float32(reach)
        inside += lattice_noise(self.seed + 11, y, x, reach * 0.55) * np.float32(reach * 0.3)
        inside += lattice_noise(self.seed + 12, y, x, max(reach * 0.12, 60.0)) * np.float32(reach * 0.06)
        inside += lattice_noise(self.seed + 13, y, x, 45.0) * np.float32(min(12.0, reach * 0.03))
        return inside

    def region(self, y: np.ndarray, x: np.ndarray, tissue: np.ndarray | None = None) -> Region:
        """Compute all of the geometry at the positions ``y [h]`` and ``x [w]`` in micrometres."""
        seed = self.seed
        tumour = np.clip(lattice_noise(seed + 21, y, x, self._zone) * 3 - np.float32(0.35), 0, 1)
        bend = tumour * 8 + 6
        warp_y = lattice_noise(seed + 1, y, x, 230.0) * 32 + lattice_noise(seed + 3, y, x, 62.0) * bend
        warp_y += lattice_noise(seed + 6, y, x, 850.0) * 110
        warp_x = lattice_noise(seed + 2, y, x, 230.0) * 32 + lattice_noise(seed + 4, y, x, 62.0) * bend
        cells, place, dy, dx = self._cells(y, x, warp_y, warp_x)
        p, q, r = (cells[name].take(place) for name in ("yy", "yx", "xx"))
        gy, gx = p * dy + q * dx, q * dy + r * dx
        squared = gy * dy + gx * dx
        # first-order distance to the ellipse: (1 - rho) / |gradient of rho|
        root = np.sqrt(squared)
        depth = (1 - root) * root / (np.sqrt(gy * gy + gx * gx) + np.float32(1e-6))
        return Region(
            self.tissue(y, x) if tissue is None else tissue, depth, dy, dx, place, cells, warp_y, warp_x
        )

    def _cells(
        self, y: np.ndarray, x: np.ndarray, warp_y: np.ndarray, warp_x: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
        """Find the lattice cell of every position: a table of cells, indices into it, positions from the centres."""
        # The bulk of the coordinate is split off in float64, so that float32 keeps its precision on slides of any size.
        whole_y, rest_y = _split(y)
        whole_x, rest_x = _split(x)
        v = (rest_y[:, None] + warp_y) * np.float32(1 / CELL_UM)
        row_f = np.floor(v)
        row = row_f.astype(np.int32) + whole_y[:, None]
        u = (rest_x + warp_x) * np.float32(1 / CELL_UM) + (row & 1).astype(np.float32) * np.float32(0.5)
        column_f = np.floor(u)
        column = column_f.astype(np.int32) + whole_x
        first, left = int(row.min()), int(column.min())
        rows, columns = int(row.max()) - first + 1, int(column.max()) - left + 1
        cells = self._cell_table(np.arange(first, first + rows)[:, None], np.arange(left, left + columns))
        place = (row - first) * columns + (column - left)
        dy = (v - row_f) * np.float32(CELL_UM) - cells["y"].take(place)
        dx = (u - column_f) * np.float32(CELL_UM) - cells["x"].take(place)
        return cells, place, dy, dx

    def _cell_table(self, row: np.ndarray, column: np.ndarray) -> dict[str, np.ndarray]:
        """Draw what sits in each cell: its kind, centre, size and direction."""
        draw = [hash_unit(self.seed + 31 + k, row, column).astype(np.float64) for k in range(8)]
        centre_y = ((row + 0.5) * CELL_UM).ravel()
        centre_x = ((column + 0.5) * CELL_UM).ravel()
        zone = lattice_noise(self.seed + 21, centre_y, centre_x, self._zone)
        malignant = zone + (draw[7] - 0.5) * 0.3 > 0.22
        kind = np.where(draw[0] < GLAND_SHARE, np.where(malignant, TUMOUR, BENIGN), VESSEL)
        kind = np.where(draw[0] > GLAND_SHARE + VESSEL_SHARE, NOTHING, kind)
        major = RADIUS_UM[0] + (RADIUS_UM[1] - RADIUS_UM[0]) * draw[1]
        major = np.where(malignant, np.minimum(major * 1.15, RADIUS_UM[1]), major)
        major = np.where(kind == VESSEL, major * 0.55, major)
        minor = np.maximum(major * (0.58 + 0.4 * draw[2]), np.where(kind == VESSEL, 12.0, 32.0))
        play = CELL_UM / 2 - major
        sine, cosine = np.sin(np.pi * draw[3]), np.cos(np.pi * draw[3])
        a, b = 1 / major**2, 1 / minor**2
        table = {
            "kind": kind.astype(np.uint8),
            # an empty cell has its structure far away: every position lies deep outside of it
            "y": np.where(kind == NOTHING, FAR_UM, CELL_UM / 2 + (draw[4] * 2 - 1) * play),
            "x": CELL_UM / 2 + (draw[5] * 2 - 1) * play,
            "yy": a * sine**2 + b * cosine**2,
            "xx": a * cosine**2 + b * sine**2,
            "yx": (a - b) * sine * cosine,
            "radius": (major + minor) / 2,
            "number": np.floor(draw[6] * 4096),
        }
        return {
            name: np.ascontiguousarray(values.ravel(), np.uint8 if name == "kind" else np.float32)
            for name, values in table.items()
        }


def _split(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split positions into whole lattice cells (int32) and the rest in micrometres (float32)."""
    whole = np.floor(positions / CELL_UM)
    return whole.astype(np.int32), (positions - whole * CELL_UM).astype(np.float32)


def _pieces(
    height: float, width: float, count: int, seed: int
) -> tuple[list[tuple[float, float, float, float]], float]:
    """Lay ``count`` pieces of tissue side by side: (y, x, half height, half width) of each, and the smallest half."""
    along, across = max(height, width), min(height, width)
    draws = hash_unit(seed + 5, np.arange(count)[:, None], np.arange(4))
    slot = along / count
    pieces = []
    for i, (move, aside, tall, wide) in enumerate(draws.tolist()):
        crowded = count > 1
        half_along = slot * ((0.34 + 0.08 * wide) if crowded else 0.5)
        half_across = across * ((0.24 + 0.14 * tall) if crowded else 0.5)
        centre_along = slot * (i + 0.5 + (0.12 * (move - 0.5) if crowded else 0))
        centre_across = across * (0.5 + (0.22 * (aside - 0.5) if crowded else 0))
        if width >= height:
            pieces.append((centre_across, centre_along, half_across, half_along))
        else:
            pieces.append((centre_along, centre_across, half_along, half_across))
    return pieces, min(min(piece[2:]) for piece in pieces)
