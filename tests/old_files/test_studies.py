"""An old study: its table and its tallies are read, its page is drawn, and it grows by runs that are its own."""

from __future__ import annotations

import csv
import json
import shutil

import pytest

from napari_kdseg.jobs import Done, run_inline
from napari_kdseg.study import StudyConfig, Table, study, write_evidence

METHODS = ["teacher", "alone", "kd", "plc-kd"]


def lines(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table(written):
    folder = written / "study"
    table = Table(folder)
    raw = lines(folder / "runs.csv")
    assert [row.method for row in table.rows] == [line["method"] for line in raw] == METHODS
    for row, line in zip(table.rows, raw, strict=True):
        assert row.test_dice == float(line["test_dice"])
        assert (row.params, row.seed, row.device) == (int(line["params"]), 0, line["device"])
        assert table.classes(row.run) == {"gland": pytest.approx(row.test_dice, abs=1e-6)}, (
            "of one class it is the mean"
        )
        images = {line["tile"]: line["dice"] for line in lines(folder / "images" / f"{row.run.name}.csv")}
        read = table.images(row.run)
        assert {tile: f"{dice:.6g}" for tile, dice in read.items() if dice == dice} == {
            tile: dice for tile, dice in images.items() if dice
        }


def test_the_page(old):
    """Every figure of the table and of the tallies of why is on it."""
    folder = old / "study"
    for page in ("report.md", "why.md"):
        (folder / page).unlink()
    write_evidence(folder)
    report, why = ((folder / page).read_text() for page in ("report.md", "why.md"))
    for row in Table(folder).rows:
        assert f"{row.test_dice:.4f}" in report, row.method
    mended: dict[str, float] = {}
    for line in lines(folder / "why-glands.csv"):
        if line["split"] == "test":
            mended[line["step"]] = mended.get(line["step"], 0.0) + float(line["pixels"])
    assert mended
    for step, pixels in mended.items():
        assert f"| {pixels:.0f} |" in why, step


def test_it_grows(old):
    """A variant is added: teacher and assistant are those of then, and what was done is not done again."""
    folder = old / "study"
    shutil.copy(folder / "study.yaml", folder / "grown.yaml")
    text = (
        (folder / "grown.yaml").read_text().replace("[alone, kd, plc-kd]", '[alone, kd, plc-kd, "plc-kd:f"]')
    )
    (folder / "grown.yaml").write_text(text)
    before = (folder / "runs.csv").read_text()
    config = StudyConfig.load(folder / "grown.yaml")
    running = run_inline(study, config)
    assert isinstance(running.end, Done), running.end
    assert (running.end.result.done, running.end.result.planned) == (5, 5)
    assert (folder / "runs.csv").read_text().startswith(before), "rows of then stay as they are"
    new = Table(folder).rows[-1]
    assert new.method == "plc-kd:f"
    run = folder / "work" / "runs" / new.run.name
    steps = {json.loads(line)["stage"] for line in (run / "metrics.jsonl").read_text().splitlines()}
    assert steps == {"student"}, "the stage that another run had trained was found by its key"
    told = json.loads((run / "config.json").read_text())
    assert [*told["trained_stages"]] == ["false_pixel_assistant"]
