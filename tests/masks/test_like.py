"""A store made like another one has its overview, where that is one of the same slide."""

from __future__ import annotations

import numpy as np
import zarr

from napari_kdseg.masks import MaskStore
from napari_kdseg.slides import open_slide


def overview(path):
    return np.asarray(zarr.open_group(path, mode="r")["0"])


def test_the_overview_of_the_same_slide_is_taken(tmp_path):
    with open_slide("synthetic:300x200?seed=1&mpp=0.5") as slide:
        first = MaskStore(tmp_path / "a.ome.zarr", slide).path
        drawn = zarr.open_group(first, mode="r+")["0"]
        drawn[:] = 7  # told from one that was drawn anew
        again = MaskStore(tmp_path / "b.ome.zarr", slide, like=first).path
        assert (overview(again) == 7).all()
    with open_slide("synthetic:300x200?seed=2&mpp=0.5") as other:
        mine = MaskStore(tmp_path / "c.ome.zarr", other, like=first).path
        alone = MaskStore(tmp_path / "d.ome.zarr", other, like=tmp_path / "nothing").path
        np.testing.assert_array_equal(overview(mine), overview(alone))
        assert not (overview(mine) == 7).all()
