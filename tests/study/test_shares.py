"""Shares of the labels: nested, of every kind of tile, and drawn by the seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_kdseg.study.shares import share
from napari_kdseg.training.tiles.tile import Tile

TILES = [Tile(f"tile{n:03d}", Path(), Path(), (8, 8)) for n in range(120)]
KINDS = ["rare" if n % 40 == 0 else "common" for n in range(120)]


@pytest.mark.parametrize("seed", [0, 7])
def test_shares_are_nested_and_hold_every_kind(seed):
    before: set[Tile] = set()
    for fraction, rare, common in ((0.05, 1, 6), (0.1, 1, 12), (0.25, 1, 30), (1.0, 3, 117)):
        drawn = share(TILES, KINDS, fraction, seed)
        kinds = [KINDS[TILES.index(tile)] for tile in drawn]
        assert (kinds.count("rare"), kinds.count("common")) == (rare, common)
        assert before <= set(drawn)
        before = set(drawn)


def test_another_seed_draws_other_tiles():
    assert set(share(TILES, KINDS, 0.1, 0)) != set(share(TILES, KINDS, 0.1, 1))
    assert share(TILES, KINDS, 0.1, 3) == share(TILES, KINDS, 0.1, 3)
