"""Noise that is a function of position alone, so any part of a slide of any size can be computed by itself.

Two kinds: lattice noise from an integer hash, whose every value is the same to the last bit whichever region it is
computed in (geometry), and a small periodic table of smooth noise that is looked up (texture).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import scipy.fft

TABLE_ROWS, TABLE_COLUMNS = 1024, 2048
TABLE_FEATURE = (8, 32)
"""Cells of the table per feature of its noise, down and along."""

TABLE_UNIT = 32

MAX_STRETCHES = 32


def hash_unit(seed: int, *coordinates: Any) -> np.ndarray:
    """Return float32 values in [0, 1) that depend on integer coordinates and nothing else.

    The mixing steps are the ``lowbias32`` hash of C. Wellons (Hash Prospector).
    """
    mixed: Any = np.uint32((seed * 0x9E3779B9 + 0x85EBCA6B) & 0xFFFFFFFF)
    with np.errstate(over="ignore"):
        for coordinate in coordinates:
            mixed = mixed ^ (np.asarray(coordinate, np.int64).astype(np.uint32) * np.uint32(0x9E3779B1))
            mixed = (mixed ^ (mixed >> np.uint32(16))) * np.uint32(0x7FEB352D)
            mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(0x846CA68B)
            mixed = mixed ^ (mixed >> np.uint32(16))
    return ((mixed >> np.uint32(8)).astype(np.float32)) * np.float32(2**-24)


def lattice_noise(seed: int, y: np.ndarray, x: np.ndarray, wavelength: float) -> np.ndarray:
    """Smooth noise on the grid of the positions ``y [h]`` and ``x [w]``: cubic B-spline over random lattice values.

    Only elementwise arithmetic is used (no matrix product, whose rounding depends on the size of the region).

    Returns
    -------
    np.ndarray
        float32 ``[h, w]``, mean 0, standard deviation near 0.5.
    """
    rows, row_weights = _spline(y, wavelength)
    columns, column_weights = _spline(x, wavelength)
    first, left = rows.min(), columns.min()
    lattice = hash_unit(
        seed, np.arange(first, rows.max() + 4)[:, None], np.arange(left, columns.max() + 4)
    ) - np.float32(0.5)
    lines = sum(lattice[rows - first + k] * row_weights[k][:, None] for k in range(4))
    lines = np.asarray(lines * np.float32(3.6))
    return _across(lines, columns - left, column_weights)


def lattice_noise_at(seed: int, y: np.ndarray, x: np.ndarray, wavelength: float) -> np.ndarray:
    """The values of :func:`lattice_noise` at single points ``y [n]``, ``x [n]``, float32 ``[n]``, up to rounding."""
    rows, row_weights = _spline(y, wavelength)
    columns, column_weights = _spline(x, wavelength)
    out = np.zeros(len(rows), np.float32)
    for i, j in np.ndindex(4, 4):
        out += (hash_unit(seed, rows + i, columns + j) - np.float32(0.5)) * (
            row_weights[i] * column_weights[j]
        )
    return out * np.float32(3.6)


def _across(lines: np.ndarray, columns: np.ndarray, weights: tuple[np.ndarray, ...]) -> np.ndarray:
    """Interpolate along the rows of ``lines [h, n]``, stretch by stretch where lattice points are few."""
    starts = np.flatnonzero(np.diff(columns, prepend=columns[0] - 1))
    if len(starts) > MAX_STRETCHES:  # whole rows are copied faster than columns are gathered
        down = np.ascontiguousarray(lines.T)
        total = down.take(columns, axis=0) * weights[0][:, None]
        for k in range(1, 4):
            part = down.take(columns + k, axis=0)
            part *= weights[k][:, None]
            total += part
        return np.ascontiguousarray(total.T)
    out = np.empty((len(lines), len(columns)), np.float32)
    for start, stop in zip(starts, [*starts[1:], len(columns)], strict=True):
        at = columns[start]
        part = lines[:, at : at + 1] * weights[0][start:stop]
        for k in range(1, 4):
            part += lines[:, at + k : at + k + 1] * weights[k][start:stop]
        out[:, start:stop] = part
    return out


def _spline(positions: np.ndarray, wavelength: float) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Return the first of the four lattice points around each position, and their cubic B-spline weights."""
    scaled = np.asarray(positions, np.float64) / wavelength
    low = np.floor(scaled)
    t = scaled - low
    weights = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    return low.astype(np.int64) - 1, tuple(weight.astype(np.float32) for weight in weights)


@lru_cache(maxsize=4)
def noise_table(seed: int) -> np.ndarray:
    """Return a periodic table of smooth noise for :func:`look_up`, int8 in units of 1 / :data:`TABLE_UNIT`, flat.

    It is sampled four times more densely along its rows than down its columns, for noise that is stretched that way.
    """
    white = np.random.default_rng(seed & 0xFFFFFFFF).standard_normal((TABLE_ROWS, TABLE_COLUMNS), np.float32)
    fy = np.fft.fftfreq(TABLE_ROWS)[:, None] * TABLE_FEATURE[0]
    fx = np.fft.rfftfreq(TABLE_COLUMNS)[None] * TABLE_FEATURE[1]
    band = np.exp(-(fy**2 + fx**2) * 2.0).astype(np.float32)
    band[0, 0] = 0
    smooth = scipy.fft.irfft2(scipy.fft.rfft2(white) * band, s=white.shape)
    return np.clip(np.rint(smooth * (TABLE_UNIT / smooth.std())), -127, 127).astype(np.int8).ravel()


def look_up(table: np.ndarray, v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return the noise at float positions, one unit being one feature; standard deviation 1."""
    row = (v * np.float32(TABLE_FEATURE[0])).astype(np.int32)
    column = (u * np.float32(TABLE_FEATURE[1])).astype(np.int32)
    row &= TABLE_ROWS - 1
    column &= TABLE_COLUMNS - 1
    row *= TABLE_COLUMNS
    row += column
    return table.take(row) * np.float32(1 / TABLE_UNIT)
