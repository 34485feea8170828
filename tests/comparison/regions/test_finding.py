"""Regions against loops over labels of scipy: every figure, any tiles, two masks of random specks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_kdseg.codes import Difference
from napari_kdseg.comparison.regions.components import Components
from napari_kdseg.comparison.regions.finding import DisagreementBlock, find_regions
from napari_kdseg.comparison.regions.runs import runs_of
from napari_kdseg.comparison.regions.table import Compared

ABOUT = Compared("teacher", "student", ("background", "benign", "tumour"), (1.0, 1.0), (0.5, 0.5))


def code(first: int, second: int) -> int:
    if 255 in (first, second):
        return 255
    if first == second:
        return 0
    return 1 if second == 0 else 2 if first == 0 else 3


def reader(first, second, gap=None):
    """Read blocks of arrays, as a comparison of masks does; beyond them nothing is known."""
    codes = np.vectorize(code, otypes=[np.uint8])(first, second)

    def read(y, x, height, width, margin):
        padded = np.pad(codes, margin, constant_values=255)
        cut = np.s_[y : y + height, x : x + width]
        if not np.isin(codes[cut], (1, 2, 3)).any():
            return None
        return DisagreementBlock(
            padded[y : y + height + 2 * margin, x : x + width + 2 * margin],
            first[cut],
            second[cut],
            None if gap is None else gap[cut],
        )

    return read


def random_masks(seed, shape=(41, 53), differ=0.4):
    random = np.random.default_rng(seed)
    first = random.choice(np.array([0, 1, 2, 255], np.uint8), shape, p=[0.4, 0.3, 0.25, 0.05])
    second = np.where(random.random(shape) < differ, random.integers(0, 3, shape), first).astype(np.uint8)
    return first, second, random.integers(-1, 200, shape).astype(np.int16)


def naive(first, second, gap, deepest):
    """One row a region, in the order of their first pixels."""
    differ = (first != second) & (first != 255) & (second != 255)
    depth = ndimage.distance_transform_edt(np.pad(differ, 1))[1:-1, 1:-1]
    rows = []
    for a in range(3):
        for b in range(3):
            labels, count = ndimage.label(differ & (first == a) & (second == b), np.ones((3, 3)))
            for number in range(1, count + 1):
                y, x = np.nonzero(labels == number)
                known = gap[y, x][gap[y, x] >= 0]
                rows.append(
                    {
                        "first": (y[0], x[0]),
                        "kind": code(a, b),
                        "first_class": a,
                        "second_class": b,
                        "area_px": len(y),
                        "y0": y.min(),
                        "x0": x.min(),
                        "y1": y.max() + 1,
                        "x1": x.max() + 1,
                        "centre_y": y.mean(),
                        "centre_x": x.mean(),
                        "gap": known.mean() / 254 if known.size else np.nan,
                        "depth_px": min(depth[y, x].max(), deepest),
                        "pixels": set(zip(y.tolist(), x.tolist(), strict=True)),
                    }
                )
    return sorted(rows, key=lambda row: row["first"])


@pytest.mark.parametrize("tile", [7, 16, 64])
@pytest.mark.parametrize("seed", range(4))
def test_every_figure_is_that_of_a_loop_whatever_the_tiles(tile, seed):
    first, second, gap = random_masks(seed)
    table = find_regions(reader(first, second, gap), (0, 0, *first.shape), ABOUT, tile=tile, depth=2)
    expected = naive(first, second, gap, 2)
    assert len(table) == len(expected) > 50
    for name in expected[0].keys() - {"first", "pixels"}:
        # a mean of at most 41 x 53 numbers, kept as float32 at its worst
        np.testing.assert_allclose(
            table.column(name), [row[name] for row in expected], rtol=1e-6, equal_nan=True
        )
    for region, row in zip(table, expected, strict=True):
        assert region.inside in row["pixels"]
    assert table.column("region").tolist() == list(range(len(table)))


def test_few_disagreeing_pixels_have_the_same_depths_as_many():
    yy, xx = np.indices((90, 120))
    first = np.zeros((90, 120), np.uint8)
    first[(yy - 40) ** 2 + (xx - 50) ** 2 <= 9**2] = 1
    second = np.zeros_like(first)
    (region,) = find_regions(reader(first, second), (0, 0, 90, 120), ABOUT, tile=32, depth=20)
    expected = ndimage.distance_transform_edt(first).max()
    assert region.depth_px == pytest.approx(expected)
    assert region.depth_um == pytest.approx(expected * 0.5)
    assert region.gap is None
    assert region.inside == (40, 50)


def test_a_spiral_over_many_strips_is_one_region():
    first = np.zeros((64, 64), np.uint8)
    for ring in range(0, 30, 4):
        first[ring, ring : 64 - ring] = 1
        first[ring : 64 - ring, 63 - ring] = 1
        first[63 - ring, ring + 2 : 64 - ring] = 1
        first[ring + 4 : 64 - ring, ring + 2] = 1
        first[ring + 4, ring + 2 : ring + 5] = 1
    assert ndimage.label(first, np.ones((3, 3)))[1] == 1
    table = find_regions(reader(first, np.zeros_like(first)), (0, 0, 64, 64), ABOUT, tile=8, depth=0)
    assert [region.area_px for region in table] == [int(first.sum())]
    assert np.isnan(table.column("depth_px")).all()


def test_corners_connect_and_other_pairs_of_classes_do_not():
    first = np.array([[1, 0, 2], [0, 1, 2]], np.uint8)
    table = find_regions(reader(first, np.zeros_like(first)), (0, 0, 2, 3), ABOUT, tile=2)
    assert [(r.first_class, r.area_px) for r in table] == [("benign", 2), ("tumour", 2)]
    assert {r.kind for r in table} == {Difference.ONLY_TEACHER}


def test_only_an_area_is_looked_at_and_cuts_regions():
    first, second, gap = random_masks(9)
    area = (5, 11, 20, 30)
    cut = np.s_[5:25, 11:41]
    table = find_regions(reader(first, second, gap), area, ABOUT, tile=8, depth=0)
    expected = naive(first[cut], second[cut], gap[cut], 0)
    assert table.column("area_px").tolist() == [row["area_px"] for row in expected]
    assert table.column("y0").tolist() == [row["y0"] + 5 for row in expected]


def test_other_downsamples_are_put_on_the_slide():
    first = np.zeros((10, 12), np.uint8)
    first[2:5, 3:9] = 1
    about = Compared("teacher", "student", ("background", "gland"), (2.5, 2.4), (0.25, 0.25))
    (region,) = find_regions(reader(first, np.zeros_like(first)), (0, 0, 10, 12), about, tile=4, depth=8)
    assert region.box == (5, 7, 8, 15)  # rows 5.0 to 12.5, columns 7.2 to 21.6
    # pixel i lies from 2.5 i to 2.5 (i + 1), and level-0 positions count from the centre of the first pixel
    assert region.centre == pytest.approx((3.5 * 2.5 - 0.5, 6.0 * 2.4 - 0.5))
    assert 2 <= region.inside[0] / 2.5 < 5
    assert 3 <= region.inside[1] / 2.4 < 9
    assert region.area_mm2 == pytest.approx(18 * 2.5 * 2.4 * 0.25**2 / 1e6)
    assert region.depth_px == pytest.approx(2 * np.sqrt(2.5 * 2.4), rel=1e-6)


def test_masks_that_agree_have_no_regions():
    same = np.ones((20, 20), np.uint8)
    assert len(find_regions(reader(same, same), (0, 0, 20, 20), ABOUT, tile=8)) == 0


def test_only_what_reaches_the_last_row_of_a_strip_stays_open():
    """Memory follows what is open, not what was found: the parts of a strip are finished with it."""
    width, finished = 1000, 0
    components = Components(width)
    for top in range(0, 200, 4):
        rows = np.zeros((4, width), np.uint8)
        rows[1:3, ::2] = 1  # closed within the strip
        rows[:, 500:502] = 1  # a column through all of them
        where = np.flatnonzero(rows)
        runs = runs_of(where, rows.ravel()[where], width, corner=(top, 0))
        finished += len(components.add(runs, top + 4))
        assert len(components.still_open) == 1
    # of the 500 specks of a strip, those at columns 500 and 502 belong to what goes through all strips
    assert finished == 50 * 498
    (last,) = components.finish().area
    assert last == 200 * 2 + 50 * 2  # two columns, and the two pixels at 502 in each strip
