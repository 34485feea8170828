"""Where the glands of an invented tissue lie: geometry from coordinates alone, exact at any magnification.

Tissue pieces are ellipses bent and torn by noise. Slow fields say where mucosa, loose tissue, fat and muscle are, and
where there is a tumour. Glands and vessels sit one to a cell of a staggered lattice in coordinates that are warped at
three scales, which makes them irregular and hides the lattice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_kdseg.synthetic.noise import hash_unit, lattice_noise, lattice_noise_at

BACKGROUND, GLAND, TUMOUR_GLAND = 0, 1, 2
CELL_UM = 118.0
RADIUS_UM = (40.0, 58.0)
SMALLEST_RADIUS_UM = 34.0
GLAND_SHARE, VESSEL_SHARE = 0.93, 0.045
MUCOSA_ABOVE, MUSCLE_BELOW = -0.3, -0.62
"""Where the layer field is higher there are glands, where it is lower there is muscle; in between is loose tissue."""

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
    cell
        Which cell of ``cells`` a position lies in.
    cells
        Table of the cells of the lattice: ``kind``, mean ``radius`` and a ``number`` in [0, 1) of what sits in each.
    warp_y, warp_x
        How far the coordinates were bent.
    layer, tumour
        The slow fields: see :data:`MUCOSA_ABOVE`; and 0 to 1 from healthy to malignant.
    """

    tissue: np.ndarray
    depth: np.ndarray
    dy: np.ndarray
    dx: np.ndarray
    cell: np.ndarray
    cells: dict[str, np.ndarray]
    warp_y: np.ndarray
    warp_x: np.ndarray
    layer: np.ndarray
    tumour: np.ndarray

    def classes(self) -> np.ndarray:
        """Return the ground truth, uint8: background, gland, tumour gland. A gland includes its lumen."""
        kind = self.cells["kind"].take(self.cell)
        return np.where((self.depth > 0) & (self.tissue > 0) & (kind <= TUMOUR), kind, np.uint8(BACKGROUND))


class Tissue:
    """An invented slide of ``height`` x ``width`` micrometres."""

    def __init__(self, height: float, width: float, seed: int):
        self.seed = seed
        short, long = sorted((height, width))
        count = 1 if short < 6000 else int(np.clip(round(long / short * 3), 3, 8))
        self.pieces, self._reach = _pieces(height, width, count, seed)
        # the lattice is turned, so that its rows lie along no edge of the slide
        angle = 0.25 + 0.5 * float(hash_unit(seed + 8, 0))
        self._cosine, self._sine = float(np.cos(angle)), float(np.sin(angle))
        self._zone = float(np.clip(0.3 * short, 700, 5000))
        self._layers = float(np.clip(0.22 * short, 900, 3600))
        # a slide too small to show the layers of an organ shows its mucosa
        self._mucosa = float(np.clip(1 - short / 5000, 0, 0.8))

    def tissue(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Distance inside the tissue, float32 ``[h, w]``, at the positions ``y [h]`` and ``x [w]`` in micrometres."""
        nearest = np.full((len(y), len(x)), 16.0, np.float32)
        for cy, cx, ay, ax in self.pieces:
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
        ragged = lattice_noise(self.seed + 13, y, x, 45.0)
        inside += ragged * np.float32(min(16.0, reach * 0.03))
        self._tear(y, x, ragged, inside)
        return inside

    def _tear(self, y: np.ndarray, x: np.ndarray, ragged: np.ndarray, inside: np.ndarray) -> None:
        """Open clefts in the tissue, in place, along the zero line of a noise and only in places."""
        where = lattice_noise(self.seed + 15, y, x, 1300.0) - np.float32(0.7)
        if where.max() > 0:
            line = np.abs(lattice_noise(self.seed + 14, y, x, 420.0)) * 160
            np.minimum(inside, line - where * 75 - 2 + ragged * 5, out=inside, where=where > 0)

    def region(self, y: np.ndarray, x: np.ndarray, tissue: np.ndarray | None = None) -> Region:
        """Compute all of the geometry at the positions ``y [h]`` and ``x [w]`` in micrometres."""
        seed = self.seed
        tumour = np.clip(lattice_noise(seed + 21, y, x, self._zone) * 3 - np.float32(0.35), 0, 1)
        bend = tumour * 15 + 7
        warp_y = lattice_noise(seed + 1, y, x, 230.0) * 38 + lattice_noise(seed + 3, y, x, 62.0) * bend
        warp_y += lattice_noise(seed + 6, y, x, 850.0) * 170
        warp_x = lattice_noise(seed + 7, y, x, 900.0) * 120
        warp_x += lattice_noise(seed + 2, y, x, 230.0) * 38 + lattice_noise(seed + 4, y, x, 62.0) * bend
        cells, cell, dy, dx = self._cells(y, x, warp_y, warp_x)
        p, q, r = (cells[name].take(cell) for name in ("yy", "yx", "xx"))
        gy, gx = p * dy + q * dx, q * dy + r * dx
        squared = gy * dy + gx * dx
        # first-order distance to the ellipse: (1 - rho) / |gradient of rho|
        root = np.sqrt(squared)
        depth = (1 - root) * root / (np.sqrt(gy * gy + gx * gx) + np.float32(1e-6))
        inside = self.tissue(y, x) if tissue is None else tissue
        layer = lattice_noise(seed + 22, y, x, self._layers) + np.float32(self._mucosa)
        return Region(inside, depth, dy, dx, cell, cells, warp_y, warp_x, layer, tumour.astype(np.float32))

    def _cells(
        self, y: np.ndarray, x: np.ndarray, warp_y: np.ndarray, warp_x: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
        """Find the lattice cell of every position: a table of cells, indices into it, positions from the centres."""
        # The bulk of the coordinate is split off in float64, so that float32 keeps its precision on slides of any size.
        cosine, sine = self._cosine, self._sine
        (whole_vy, rest_vy), (whole_vx, rest_vx) = _split(y * cosine), _split(x * sine)
        (whole_uy, rest_uy), (whole_ux, rest_ux) = _split(y * -sine), _split(x * cosine)
        v = (rest_vy[:, None] + rest_vx + warp_y) * np.float32(1 / CELL_UM)
        row_f = np.floor(v)
        row = row_f.astype(np.int32) + whole_vy[:, None] + whole_vx
        u = rest_uy[:, None] + rest_ux + warp_x
        u = u * np.float32(1 / CELL_UM) + (row & 1).astype(np.float32) * np.float32(0.5)
        column_f = np.floor(u)
        column = column_f.astype(np.int32) + whole_uy[:, None] + whole_ux
        first, left = int(row.min()), int(column.min())
        rows, columns = int(row.max()) - first + 1, int(column.max()) - left + 1
        cells = self._cell_table(np.arange(first, first + rows)[:, None], np.arange(left, left + columns))
        cell = (row - first) * columns + (column - left)
        dy = (v - row_f) * np.float32(CELL_UM) - cells["y"].take(cell)
        dx = (u - column_f) * np.float32(CELL_UM) - cells["x"].take(cell)
        return cells, cell, dy, dx

    def _cell_table(self, row: np.ndarray, column: np.ndarray) -> dict[str, np.ndarray]:
        """Draw what sits in each cell: its kind, centre, size and direction."""
        draw = [hash_unit(self.seed + 31 + k, row, column).astype(np.float64).ravel() for k in range(8)]
        v, u = (line.ravel() for line in np.broadcast_arrays((row + 0.5) * CELL_UM, (column + 0.5) * CELL_UM))
        centre = v * self._cosine - u * self._sine, v * self._sine + u * self._cosine
        zone = lattice_noise_at(self.seed + 21, *centre, self._zone)
        malignant = zone + (draw[7] - 0.5) * 0.3 > 0.22
        layer = lattice_noise_at(self.seed + 22, *centre, self._layers) + self._mucosa
        # a tumour grows through the layers
        mucosa = layer + np.where(malignant, 0.5, 0) + (draw[6] - 0.5) * 0.06 > MUCOSA_ABOVE
        share = GLAND_SHARE - 0.25 * np.clip(lattice_noise_at(self.seed + 23, *centre, 700.0), 0, 1)
        kind = np.where(draw[0] < share * mucosa, np.where(malignant, TUMOUR, BENIGN), NOTHING)
        kind = np.where(draw[0] > 1 - VESSEL_SHARE * np.where(mucosa, 1, 3), VESSEL, kind)
        spread = RADIUS_UM[1] - RADIUS_UM[0]
        major = np.where(malignant, 48 + 11 * draw[1], RADIUS_UM[0] + spread * draw[1])
        major = np.where(kind == VESSEL, 14 + 36 * draw[1] ** 2, major)
        minor = major * (0.7 + 0.28 * draw[2])
        minor = np.maximum(minor, np.where(kind == VESSEL, 9.0, SMALLEST_RADIUS_UM))
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
            "number": draw[6],
        }
        return {
            name: np.ascontiguousarray(values, np.uint8 if name == "kind" else np.float32)
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
