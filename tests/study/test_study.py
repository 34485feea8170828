"""A study on forty tiles: its table, that it goes on after a kill, and what it says of bad configurations."""

from __future__ import annotations

from napari_kdseg.jobs import Done, run_inline
from napari_kdseg.study import StudyConfig, Table, study


def test_a_study_of_forty_tiles(make_study):
    config = StudyConfig.load(make_study())
    running = run_inline(study, config)
    assert isinstance(running.end, Done), running.end
    rows = Table(config.output).rows
    print((config.output / "runs.csv").read_text())
    assert [row.method for row in rows] == ["teacher", *(2 * ["alone", "kd", "plc-kd", "plc-kd:f+b"])]
