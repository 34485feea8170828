"""The page of a study is what its table says; paired tests and their correction beside known values."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from napari_kdseg.study import StudyConfig, Table, write_evidence
from napari_kdseg.study.plan import plan
from napari_kdseg.study.report.evidence import goal, report
from napari_kdseg.study.report.page import to_markdown
from napari_kdseg.study.report.statistics import compare, holm, mean_and_sd, over_seeds
from napari_kdseg.study.table import TableRow

COMMITTED = Path(__file__).resolve().parents[2] / "docs" / "evidence"


def made_up(folder: Path, fractions=(0.1, 1.0)) -> Table:
    """Write a table in which PLC-KD is better than KD on every tile, and KD worse than the student alone."""
    table = Table(folder)
    random = np.random.default_rng(0)
    base = random.uniform(0.3, 0.6, 30)

    def add(method, teacher, fraction, seed, gain):
        student = "unet" if method == "teacher" else "enet"
        row = TableRow(
            "blobs", method, teacher, student, fraction, seed, 0.5 + gain + seed / 100,
            0.4, 0.45, 1000, 2_000_000, 10.0, "CPU", "abc",
        )  # fmt: skip
        tiles = {f"tile{n}": float(v) for n, v in enumerate(base + gain + random.normal(0, 0.001, 30))}
        table.append(row, {"gland": row.test_dice, "stroma": math.nan}, tiles)

    add("teacher", "unet", 1.0, 0, 0.2)
    for fraction in fractions:
        for seed in (0, 1, 2):
            for method, gain in (("alone", 0.0), ("kd", -0.02), ("plc-kd", 0.03)):
                add(method, "" if method == "alone" else "unet", fraction, seed, gain)
    return table


def test_the_page_says_what_the_table_says(tmp_path):
    made_up(tmp_path)
    page, web = write_evidence(tmp_path)
    text = page.read_text()
    assert "| PLC-KD | 0.5400 ± 0.0100 | +0.0300 | 0.4000 ± 0.0000 | 0.4500 ± 0.0000 | 10 | 3 |" in text
    assert "| Knowledge distillation | Student alone | -0.02" in text
    assert text.count("not reached: Knowledge distillation above Student alone (0.4900, 0.5100)") == 2
    assert text.count("reached: PLC-KD above Knowledge distillation (0.5400, 0.4900)") == 2
    assert "± nan" not in text
    assert "nan" not in re.sub("[a-z]*nance", "", text)
    plot = tmp_path / "dice-blobs-enet-unet.svg"
    before = page.read_bytes(), web.read_bytes(), plot.read_bytes()
    write_evidence(tmp_path)
    assert (page.read_bytes(), web.read_bytes(), plot.read_bytes()) == before, (
        "the same figures give the same page"
    )


def test_the_goal_compares_the_seeds_that_both_methods_have(tmp_path):
    table = made_up(tmp_path, fractions=(0.1,))
    rows = [row for row in table.rows if row.method != "kd" or row.seed == 2]
    reached, _ = goal(rows)
    assert "PLC-KD above Knowledge distillation (0.5500, 0.5000, over 1 of 3 seeds)" in reached


def test_notes_of_a_person_become_part_of_the_page(tmp_path):
    made_up(tmp_path)
    table = "| weight | Dice |\n| --- | ---: |\n| 0.1 |  |\n| 1 | 0.5 |"
    notes = f"**A line** and\nthe next.\n\n{table}\n\nThe `end` & more."
    (tmp_path / "notes-blobs.md").write_text(notes + "\n")
    (tmp_path / "read-first-blobs.md").write_text("A fault was found since.\n")
    page, web = write_evidence(tmp_path)
    assert f"### Notes\n\n{notes}" in page.read_text()
    assert "## blobs\n\nA fault was found since.\n\n" in page.read_text()
    for part in (
        "<strong>A line</strong>",
        "<code>end</code> &amp; more",
        '<td style="text-align:right">0.5</td>',
    ):
        assert part in web.read_text()
    assert web.read_text().count('src="data:image/svg+xml;base64,') == 1


def test_a_row_is_there_once_and_read_again_as_written(tmp_path):
    table = made_up(tmp_path, fractions=(0.1,))
    row = table.rows[-1]
    table.append(row, {"gland": 0.25}, {"tile0": 0.5, "tile1": math.nan})
    again = Table(tmp_path)
    assert [one.run for one in again.rows].count(row.run) == 1
    assert again.rows == table.rows
    assert again.classes(row.run) == {"gland": 0.25}
    assert again.images(row.run) == pytest.approx({"tile0": 0.5, "tile1": math.nan}, nan_ok=True)


def test_the_committed_page_agrees_with_the_committed_table():
    if not (COMMITTED / "runs.csv").is_file():
        pytest.skip("docs/evidence/runs.csv is not there yet")
    assert (COMMITTED / "report.md").read_text() == to_markdown(report(COMMITTED)[0])


@pytest.mark.parametrize("name", ["reduced", "two-class", "full"])
def test_the_committed_studies_can_be_planned(name):
    config = StudyConfig.load(COMMITTED / f"{name}.yaml")
    assert {"alone", "kd", "cwd", "cirkd", "emkd", "coco", "plc-kd"} <= set(config.methods)
    assert len(config.seeds) >= 3
    kd, plc_kd = config.settings_of("kd"), config.settings_of("plc-kd")
    assert {**plc_kd, **kd} == plc_kd, "KD and PLC-KD share temperature and weight"
    names = [run.name for run in plan(config)]
    assert len(set(names)) == len(names)


def test_statistics():
    assert mean_and_sd([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert math.isnan(mean_and_sd([1.0])[1])
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert over_seeds([{"a": 1.0, "b": 0.5}, {"a": 0.0, "b": math.nan}]) == {"a": 0.5}
    one = {f"{n}": float(n) for n in range(20)}
    other = {name: value - 1 for name, value in one.items()}
    paired = compare(one, other)
    assert (paired.tiles, paired.difference, paired.better) == (20, 1.0, 1.0)
    assert paired.p < 1e-4
    assert compare(one, one).p == 1.0
