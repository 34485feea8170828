"""``kdseg compare`` gives the figures of the job, in files and in the terminal."""

from __future__ import annotations

import csv
import json
import sys

import numpy as np
import pytest

from napari_kdseg.cli import main
from napari_kdseg.comparison import CompareConfig, compare
from napari_kdseg.jobs import Control
from napari_kdseg.masks import MaskSpec, MaskStore, plan_tiles
from napari_kdseg.slides import open_slide

SLIDE = "synthetic:600x400?seed=1&mpp=0.5"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with a teacher and a student that misses one gland."""
    path = tmp_path_factory.mktemp("compared") / "masks.ome.zarr"
    teacher = np.zeros((200, 300), np.uint8)
    teacher[20:60, 20:80], teacher[120:180, 150:250] = 1, 1
    student = teacher.copy()
    student[20:60, 20:80] = 0
    with open_slide(SLIDE) as slide:
        for name, values in (("teacher", teacher), ("student", student)):
            spec = MaskSpec("labels", name, "class", ("background", "gland"), ((0, 0, 0), (0, 158, 115)))
            grid = {"shape": values.shape, "downsample": (2.0, 2.0), "tile": 128}
            with MaskStore(path, slide).begin([spec], **grid, made_by={}) as writer:
                for tile in plan_tiles(values.shape, None, 128, 0):
                    cut = np.s_[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
                    writer.write_tile(tile, [values[cut]])
                writer.finish(None)
    return path


def kdseg(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["kdseg", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


def test_files_and_terminal_say_what_the_job_says(store, tmp_path, monkeypatch, capfd):
    masks = ("--teacher", store, "--student", store)
    assert kdseg(monkeypatch, "compare", SLIDE, *masks, "--output", tmp_path / "a", "--tolerance", "4") == 0
    printed = capfd.readouterr().out
    assert "the teacher is not the truth" in printed
    assert "only teacher" in printed
    config = CompareConfig(
        slide=SLIDE, output=tmp_path / "b", teacher=str(store), student=str(store), tolerance=4.0
    )
    result = compare(config, lambda _event: None, Control())
    with (tmp_path / "a" / "scores.csv").open(newline="") as file:
        gland = next(row for row in csv.DictReader(file) if row["class"] == "gland")
    assert float(gland["dice"]) == result.scores[0].by_class[1].dice == 2 * 6000 / (8400 + 6000)
    with (tmp_path / "a" / "regions.csv").open(newline="") as file:
        (region,) = csv.DictReader(file)
    assert (int(region["area_px"]), float(region["area_mm2"])) == (2400, pytest.approx(2400e-6))
    assert len(result.regions) == 1


def test_the_summary_is_json_and_nothing_else(store, tmp_path, monkeypatch, capfd):
    masks = ("--teacher", f"{store}?teacher", "--reference", f"{store}?student")
    options = ("--region", "0,0,200,600", "--no-scores", "--json")
    assert kdseg(monkeypatch, "compare", SLIDE, *masks, *options, "--output", tmp_path) == 0
    summary = json.loads(capfd.readouterr().out)
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert summary["scores"][0]["confusion"] == [[100 * 300 - 2400, 0], [2400, 0]]
    assert summary["compared_to"] == "reference"


def test_what_does_not_work_is_one_sentence(store, tmp_path, monkeypatch, capfd):
    assert kdseg(monkeypatch, "compare", SLIDE, "--teacher", store, "--output", tmp_path) == 2
    assert "takes two masks or more" in capfd.readouterr().err
