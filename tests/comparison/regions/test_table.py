from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from napari_kdseg.codes import Difference
from napari_kdseg.comparison.regions.table import COLUMNS, Compared, RegionTable
from napari_kdseg.errors import SlideError

CLASSES = ("background", "benign", "tumour")


def made(count: int = 40, seed: int = 3, mpp=(0.5, 0.5)) -> RegionTable:
    """Regions of random figures: the table does not ask where they come from."""
    random = np.random.default_rng(seed)
    rows = np.zeros(count, COLUMNS)
    rows["region"] = np.arange(count)
    pairs = np.array([(1, 0), (2, 0), (0, 1), (0, 2), (1, 2), (2, 1)])[random.integers(0, 6, count)]
    rows["first_class"], rows["second_class"] = pairs.T
    rows["kind"] = np.where(pairs[:, 1] == 0, 1, np.where(pairs[:, 0] == 0, 2, 3))
    rows["area_px"] = random.integers(1, 9, count)
    rows["area_mm2"] = rows["area_px"] * 1e-6 if mpp else np.nan
    rows["gap"] = np.where(random.random(count) < 0.2, np.nan, random.random(count))
    rows["inside_y"], rows["inside_x"] = random.integers(0, 100, (2, count))
    rows["y0"], rows["y1"] = rows["inside_y"] - 1, rows["inside_y"] + 2
    rows["x0"], rows["x1"] = rows["inside_x"] - 1, rows["inside_x"] + 2
    return RegionTable(rows, Compared("teacher", "student", CLASSES, (2.0, 2.0), mpp, 64.0, {"slide": "x"}))


def test_filters_are_those_of_a_loop():
    table = made()
    asked = {
        "kinds": [Difference.ONLY_TEACHER, Difference.DIFFERENT_CLASS],
        "pairs": [(1, 0), (2, 1), (1, 2)],
        "box": (10, 20, 80, 60),
        "gap": (0.2, None),
        "area_px": (2, 7),
    }
    naive = [
        r.number
        for r in table
        if r.kind in asked["kinds"]
        and (CLASSES.index(r.first_class), CLASSES.index(r.second_class)) in asked["pairs"]
        and 10 <= r.inside[0] < 90
        and 20 <= r.inside[1] < 80
        and r.gap is not None
        and r.gap >= 0.2
        and 2 <= r.area_px <= 7
    ]
    assert naive
    assert table.filtered(**asked).column("region").tolist() == naive
    assert len(table.filtered()) == len(table)


@pytest.mark.parametrize("by", ["area_mm2", "gap", "region"])
@pytest.mark.parametrize("largest_first", [True, False])
def test_ranks_are_those_of_sorted_and_what_is_not_known_is_last(by, largest_first):
    table = made()
    known = [(float(row[by]), int(row["region"])) for row in table.rows if not np.isnan(row[by])]
    naive = [number for _, number in sorted(known, key=lambda r: (-r[0] if largest_first else r[0], r[1]))]
    ranked = table.ranked(by, largest_first=largest_first).column("region").tolist()
    assert ranked[: len(naive)] == naive
    assert ranked[len(naive) :] == [int(row["region"]) for row in table.rows if np.isnan(row[by])]


def test_without_a_scale_areas_are_ranked_in_pixels():
    table = made(mpp=None)
    assert (np.diff(table.ranked("area_mm2").column("area_px")) <= 0).all()
    assert table.at(0).area_mm2 is None


def test_numbers_are_kept_by_filters_and_sorting():
    table = made().filtered(area_px=(3, None)).ranked("gap")
    number = table.at(4).number
    assert table.index_of(number) == 4
    dropped = next(r.number for r in made() if r.area_px < 3)
    assert table.index_of(dropped) is None


@pytest.mark.parametrize("count", [0, 5])
def test_a_table_comes_back_from_disk(tmp_path, count):
    table = made(count)
    table.save(tmp_path / "regions.npy")
    again = RegionTable.load(tmp_path / "regions.npy")
    assert again.about == table.about
    assert again.rows.tobytes() == table.rows.tobytes()


def test_a_damaged_or_unfinished_table_is_refused(tmp_path):
    path = tmp_path / "regions.npy"
    made().save(path)
    other = made(7)
    with path.open("wb") as file:
        np.save(file, other.rows)
    with pytest.raises(SlideError, match="Compare the masks again"):
        RegionTable.load(path)
    (tmp_path / "regions.json").unlink()
    with pytest.raises(SlideError, match="Compare the masks again"):
        RegionTable.load(path)


def test_the_json_beside_is_strict(tmp_path):
    table = made(2)
    endless = RegionTable(table.rows, Compared("a", "b", CLASSES, (1.0, 1.0)))
    endless.save(tmp_path / "r.npy")
    json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)
    assert RegionTable.load(tmp_path / "r.npy").about == endless.about


def test_csv_says_kinds_and_classes_in_words(tmp_path):
    table = made()
    table.write_csv(tmp_path / "regions.csv")
    with (tmp_path / "regions.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(table)
    for line, region in zip(lines, table, strict=True):
        assert int(line["region"]) == region.number
        assert line["kind"] == {1: "only teacher", 2: "only student", 3: "different class"}[region.kind]
        assert (line["first_class"], line["second_class"]) == (region.first_class, region.second_class)
        assert int(line["area_px"]) == region.area_px
        assert (line["gap"] == "") == (region.gap is None)
