"""The objects of one mask, and how much of each another mask found: agreement by the size of what there is to find."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_kdseg.codes import Difference
from napari_kdseg.comparison.compared.mask import Role
from napari_kdseg.comparison.compared.together import Together
from napari_kdseg.comparison.regions.finding import DisagreementBlock, ReadBlock
from napari_kdseg.comparison.regions.table import RegionTable
from napari_kdseg.masks.reduction import NOT_COMPUTED

FOUND = NOT_COMPUTED - 1
EDGES_UM2 = (100.0, 1_000.0, 10_000.0, 100_000.0)
"""Upper ends of the sizes but the last one: a nucleus, a vessel, a small gland, a gland; pixels without a scale."""


def objects_of(masks: Together, truth: Role, other: Role) -> ReadBlock:
    """Return what reads the objects of ``truth`` for :func:`~napari_kdseg.comparison.regions.finding.find_regions`.

    An object is a connected set of pixels of one class but background. In the table of these, ``first_class`` is that
    class, and ``gap`` the share of its pixels that ``other`` gives the same class, of those that it knows.
    """

    def read(y: int, x: int, height: int, width: int, margin: int) -> DisagreementBlock | None:
        if margin:
            raise ValueError("objects have no depth: ask for none")
        blocks = masks.read(y, x, height, width)
        there, seen = blocks[truth], blocks[other]
        inside = (there != 0) & (there != NOT_COMPUTED)
        if not inside.any():
            return None
        found = np.where(seen == there, FOUND, 0).astype(np.int16)
        found[seen == NOT_COMPUTED] = -1
        codes = np.where(inside, Difference.ONLY_TEACHER, Difference.AGREE).astype(np.uint8)
        return DisagreementBlock(codes, there, np.zeros_like(there), found)

    return read


def found_by_size(
    objects: RegionTable, pixel_um2: float, edges: Sequence[float] = EDGES_UM2
) -> list[tuple[int, int, int, int, float]]:
    """Count objects by class and size.

    Parameters
    ----------
    objects
        As :func:`objects_of` reads them.
    pixel_um2
        Area of a pixel of the grid, 1 without a scale.
    edges
        Upper ends of the sizes but the last one.

    Returns
    -------
    list of tuple
        ``(class, size, objects, found, mean share found)`` of what occurs: an object is found if at least half of its
        pixels are. Objects that the other mask did not compute are left out.
    """
    known = ~np.isnan(objects.column("gap"))
    values, share = objects.column("first_class")[known], objects.column("gap")[known].astype(np.float64)
    size = np.digitize(objects.column("area_px")[known] * pixel_um2, edges, right=True)
    rows = []
    for value in np.unique(values):
        for place in range(len(edges) + 1):
            of_it = share[(values == value) & (size == place)]
            if of_it.size:
                found = int(np.count_nonzero(of_it >= 0.5))
                rows.append((int(value), place, int(of_it.size), found, float(of_it.mean())))
    return rows
