"""A study on forty tiles: its table, that it goes on after a kill, and what it says of bad configurations."""

from __future__ import annotations

import csv
import subprocess
import sys
import time

import numpy as np
import pytest

from napari_kdseg.errors import ConfigurationError, DataError
from napari_kdseg.jobs import Cancelled, Done, Failed, Message, RunningJob, run_inline, run_job
from napari_kdseg.study import StudyConfig, StudyProgress, Table, study, write_evidence
from napari_kdseg.study.plan import Places, Run
from napari_kdseg.study.report.evidence import report
from napari_kdseg.study.report.page import to_markdown
from napari_kdseg.study.why import distance_bins, look_into, tile_kind

METHODS = ["alone", "kd", "plc-kd", "plc-kd:f+b"]


def test_a_study_of_forty_tiles(make_study):
    """The example configuration of docs/studies.md, in small; then its report, which is what the table says."""
    config = StudyConfig.load(make_study())
    running = run_inline(study, config)
    assert isinstance(running.end, Done), running.end
    assert (running.end.result.done, running.end.result.planned) == (5, 5)
    table = Table(config.output)
    assert [row.method for row in table.rows] == ["teacher", *METHODS]
    teacher, *students = table.rows
    assert (teacher.student, teacher.label_fraction) == ("unet/tu-resnet18", 1.0)
    assert {row.params for row in students} == {349_356}
    assert all(0 < row.macs < teacher.macs for row in students)
    by_method = {row.method: row for row in students}
    # A run counts the seconds of its assistants also where another run trained them.
    assert by_method["plc-kd:f+b"].train_seconds > by_method["kd"].train_seconds

    work = config.work_folder
    assert len(list((work / "stages").glob("*.safetensors"))) == 2, (
        "both variants use the same two assistants"
    )
    assert not (work / "memory").exists()
    folders = {row.method: Places(work).run(row.run) / "checkpoints" for row in students}
    kept = {method: {path.stem for path in folder.iterdir()} for method, folder in folders.items()}
    team = {"teacher", "false_pixel_assistant", "boundary_assistant"}
    assert kept == {
        "alone": {"student"},
        "kd": {"student", "teacher"},
        "plc-kd": {"student", *team},
        "plc-kd:f+b": {"student", *team},
    }, "each run folder is whole, for the window and kdseg correct"
    assert all((folders["plc-kd"] / f"{name}.safetensors").stat().st_nlink > 2 for name in team), (
        "what runs share is on disk once"
    )

    progress = [event for event in running.history if isinstance(event, StudyProgress)]
    assert progress[0].done == 0
    assert progress[-1].done == 5
    assert progress[-1].seconds_left == 0
    assert not [
        event for event in running.history if isinstance(event, Message) and event.level == "warning"
    ][1:]

    page, web = write_evidence(config.output)
    text = page.read_text()
    assert text == to_markdown(report(config.output)[0])
    for row in students:
        assert f"{row.test_dice:.4f}" in text
    assert web.read_text().count("<table>") == text.count("| --- |")
    ended = run_inline(look_into, config).end
    assert isinstance(ended, Done), ended
    write_evidence(config.output)
    lines = list(csv.DictReader((config.output / "why-blobs.csv").open()))
    counts = list(csv.DictReader((config.output / "why-tiles-blobs.csv").open()))
    test_pixels = sum(float(line["pixels"]) for line in lines if line["split"] == "test")
    test_tiles = sum(int(line["tiles"]) for line in counts if line["split"] == "test")
    assert test_tiles == 8
    assert test_pixels == test_tiles * 32 * 32, "every labelled pixel is counted once"
    why = (config.output / "why.md").read_text()
    for step in ("right", "similarity"):
        mended = sum(float(one["pixels"]) for one in lines if (one["split"], one["step"]) == ("test", step))
        assert f"| {mended:.0f} |" in why
    assert "Example tiles" in page.read_text()

    given = config.teachers[0].model_copy(update={"checkpoint": Places(work).network(teacher.run)})
    tuning = {
        "teachers": (given,),
        "methods": ("kd",),
        "output": config.output.with_name("tuning"),
        "at_once": 2,
    }
    ended = run_inline(study, config.model_copy(update=tuning)).end
    assert isinstance(ended, Done), ended
    again = Table(tuning["output"]).rows
    copy = Places(tuning["output"] / "work").network(again[1].run).with_name("teacher.safetensors")
    assert not copy.samefile(given.checkpoint), "a user's file is not linked: it may change"
    assert again[0].test_dice == pytest.approx(teacher.test_dice), (
        "a teacher that is given is scored, not trained"
    )
    assert again[1].test_dice == pytest.approx(by_method["kd"].test_dice, abs=1e-4), (
        "also in a process of its own"
    )

    assert run_inline(study, config).end.result.done == 5, "a second time nothing is left to do"
    other = run_inline(study, config.model_copy(update={"steps": 9})).end
    assert isinstance(other, Failed)
    assert "other settings (steps)" in other.message, "runs that cannot be compared are not mixed"


def test_it_goes_on_after_a_kill(make_study):
    """A run that was killed in the middle resumes; the table holds every run once, and the same figures."""
    config = StudyConfig.load(make_study(methods="[alone]", steps="8"))
    whole = config.model_copy(update={"output": config.output.with_name("whole")})
    assert isinstance(run_inline(study, whole).end, Done)

    limited = config.model_copy(update={"limit": 1})
    assert run_inline(study, limited).end.result.done == 1
    command = "import sys; from napari_kdseg.cli import main; sys.argv[1:] = sys.stdin.read().split(); main()"
    path = config.output.with_name("study.yaml")
    killed = subprocess.Popen(
        [sys.executable, "-c", command], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert killed.stdin is not None
    killed.stdin.write(f"study {path}")
    killed.stdin.close()
    figures = Places(config.work_folder).run(Run("blobs", "alone", "", "enet", 0.4, 0)) / "metrics.jsonl"
    while killed.poll() is None and (not figures.exists() or figures.read_text().count('"step"') < 3):
        time.sleep(0.02)
    killed.kill()
    killed.wait()

    assert isinstance(run_inline(study, config).end, Done)
    mine, theirs = Table(config.output), Table(whole.output)
    assert [row.run for row in mine.rows] == [row.run for row in theirs.rows]
    for one, other in zip(mine.rows, theirs.rows, strict=True):
        assert one.test_dice == pytest.approx(other.test_dice, abs=1e-5)
        assert mine.images(one.run) == pytest.approx(theirs.images(other.run), abs=1e-4, nan_ok=True)


def test_cancelled_it_stops_and_goes_on(make_study):
    config = StudyConfig.load(make_study(methods="[alone]"))
    running = RunningJob()
    running.observe(
        lambda event: (
            running.control.cancel()
            if isinstance(event, StudyProgress) and any(run.stage == "student" for run in event.runs)
            else None
        )
    )
    run_job(study, config, running.emit, running.control)
    assert isinstance(running.end, Cancelled)
    assert run_inline(study, config).end.result.done == 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"methods": "[alone, plckd]"}, "no distillation method 'plckd'. Did you mean 'plc-kd'"),
        ({"methods": "[kd, kd]"}, "'methods' holds kd twice"),
        ({"label_fractions": "[0.1, 2]"}, "label_fractions.1"),
        ({"seeds": "[]"}, "seeds"),
        ({"settings": "{emkdd: {}}"}, "no distillation method 'emkdd'"),
        ({"settings": "{emkd: {weight: 1}}"}, "weight"),
        ({"methods": '["kd+cwd@2"]'}, "several teachers at once"),
        ({"steps": "many"}, "steps"),
        ({"task": "{"}, "cannot be understood"),
    ],
)
def test_bad_configurations(make_study, changes, sentence):
    path = make_study(**changes)
    with pytest.raises(ConfigurationError) as raised:
        StudyConfig.load(path)
    assert sentence in str(raised.value)
    assert "study.yaml" in str(raised.value)


def test_a_file_that_is_no_study(tmp_path):
    for name, sentence in (
        ("study.txt", "Save it as .yaml, .toml or .json"),
        ("none.yaml", "does not exist"),
    ):
        if name.endswith("txt"):
            (tmp_path / name).write_text("x")
        with pytest.raises(ConfigurationError, match=sentence):
            StudyConfig.load(tmp_path / name)


def test_json_and_toml_say_the_same(make_study, tmp_path):
    config = StudyConfig.load(make_study())
    (tmp_path / "study.json").write_text(config.model_dump_json())
    assert StudyConfig.load(tmp_path / "study.json") == config
    (tmp_path / "small.toml").write_text('task = "blobs"\n[data]\nfolder = "tiles"\n')
    assert StudyConfig.load(tmp_path / "small.toml").data.test_fraction == 0.2


def test_kd_and_plc_kd_share_temperature_and_weight(make_study):
    config = StudyConfig.load(make_study(methods="[kd, plc-kd, emkd]")).model_copy(
        update={"temperature": 3.0}
    )
    assert config.settings_of("kd") == {"temperature": 3.0, "kd_weight": 1.0}
    assert config.settings_of("plc-kd")["temperature"] == 3.0
    assert "temperature" not in config.settings_of("emkd")
    assert config.settings_of("plc-kd:f+sc+cwd") == {}, "a sum is no variant of its first part"


def test_constants_of_a_method_are_those_of_its_variants_but_for_what_they_change(make_study):
    config = StudyConfig.load(make_study(methods="[emkd, 'emkd:pmd', 'emkd-paper:imd', 'emkd-paper:pmd']"))
    config.settings = {
        "emkd": {"segmentation_loss": "ce+dice", "region_weight": 0.5},
        "emkd-paper": {"temperature": 2.0, "power": 4},
        "emkd-paper:imd": {"power": 2},
    }
    assert config.settings_of("emkd") == {"segmentation_loss": "ce+dice", "region_weight": 0.5}
    assert config.settings_of("emkd:pmd") == {"segmentation_loss": "ce+dice"}  # it has no regions
    assert config.settings_of("emkd-paper:imd") == {"temperature": 2.0, "power": 2}
    assert config.settings_of("emkd-paper:pmd") == {"temperature": 2.0, "power": 4}


def test_a_table_that_is_damaged(tmp_path):
    (tmp_path / "runs.csv").write_text("task,method\na,b\n")
    with pytest.raises(DataError, match="has no column teacher"):
        Table(tmp_path)
    with pytest.raises(DataError, match=r"no runs\.csv"):
        write_evidence(tmp_path / "elsewhere")


def test_distances_and_tiles_that_are_wholly_wrong():
    target = np.zeros((1, 24), np.uint8)
    target[0, 12:] = 1
    assert distance_bins(target)[0, 12:].tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3]
    assert set(distance_bins(np.zeros((4, 4), np.uint8)).ravel()) == {3}, "a tile without a border"
    assert tile_kind(np.zeros((1, 24), np.uint8), target) == "right"
    assert tile_kind((target == 1) * np.uint8(3), target) == "wholly wrong"
    assert tile_kind((target == 0) * np.uint8(1), target) == "partly wrong"
