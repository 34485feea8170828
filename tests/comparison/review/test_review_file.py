"""What is said of regions is on disk when it was said, and is found again: after a kill, after other masks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from napari_kdseg.comparison.regions.table import RegionTable
from napari_kdseg.comparison.review.file import FORMAT, open_review, read_review
from napari_kdseg.comparison.review.marks import Mark, Marks, Verdict, in_words
from napari_kdseg.errors import OutputError, SlideError

CLASSES = ("background", "gland", "tumour")
SLIDE = ("slide.svs", "blake2:abc")


def masks():
    """Two masks of 60 x 60 that differ at four places."""
    first, second = np.zeros((60, 60), np.uint8), np.zeros((60, 60), np.uint8)
    first[5:15, 5:15] = 1
    second[30:36, 10:30] = 2
    first[45:55, 40:50], second[45:55, 40:50] = 1, 2
    first[20:22, 50:52] = 2
    return first, second


@pytest.fixture
def table(regions_of):
    return regions_of(*masks(), CLASSES)


@pytest.fixture
def opened(tmp_path, table):
    return lambda now=None: open_review(tmp_path, *SLIDE, table if now is None else now)


def said(marks: Marks):
    return {number: (mark.mark, mark.comment) for number, mark in marks.regions().items()}


def say(review, table, number, verdict, comment=""):
    mark = Mark.on(table.at(table.index_of(number)), verdict, comment, by="reader 1")
    review.marks.take(mark)
    review.keep(mark)
    return mark


def step_back(review, step):
    entry, mark = step
    review.marks.take(entry)
    review.keep(entry)
    return mark


def test_marks_undo_and_redo_are_found_again(table, opened):
    review = opened()
    say(review, table, 0, Verdict.FIRST, "a gland,\nsurely")
    say(review, table, 1, Verdict.UNCLEAR)
    say(review, table, 0, Verdict.NEITHER)
    assert said(review.marks)[0] == (Verdict.NEITHER, "")
    assert step_back(review, review.marks.undone()).region == 0
    assert said(opened().marks) == {0: (Verdict.FIRST, "a gland,\nsurely"), 1: (Verdict.UNCLEAR, "")}
    step_back(review, review.marks.undone())
    assert said(opened().marks) == {0: (Verdict.FIRST, "a gland,\nsurely")}
    again = opened()
    assert step_back(again, again.marks.redone()).region == 1
    assert (
        said(opened().marks)
        == said(again.marks)
        == {0: (Verdict.FIRST, "a gland,\nsurely"), 1: (Verdict.UNCLEAR, "")}
    )
    say(again, table, 3, Verdict.BOTH)
    assert again.marks.redone() is None, "a new mark ends what could be given again"


def test_nothing_written_is_ever_rewritten(table, opened):
    review = opened()
    before = b""
    for number, verdict in enumerate([Verdict.FIRST, Verdict.SECOND, Verdict.BOTH]):
        say(review, table, number, verdict)
        now = review.path.read_bytes()
        assert now.startswith(before)
        before = now
    step_back(review, review.marks.undone())
    assert review.path.read_bytes().startswith(before)
    header, *entries = (json.loads(line) for line in review.path.read_text().splitlines())
    assert (header["kdseg_review"], header["identity"], header["first"]) == (FORMAT, "blake2:abc", "teacher")
    assert [entry.get("mark") for entry in entries] == ["first", "second", "both", None]
    assert entries[0]["by"] == "reader 1"


def test_every_verdict_is_said_with_the_names_of_the_masks(table):
    words = [in_words(verdict, replace(table.about, first="mask A", second="mask B")) for verdict in Verdict]
    assert words == ["", "mask A right", "mask B right", "both right enough", "both wrong", "unclear"]


KILLED = """
import sys
from pathlib import Path
from napari_kdseg.comparison.regions.table import RegionTable
from napari_kdseg.comparison.review.file import open_review
from napari_kdseg.comparison.review.marks import Mark, Verdict
table = RegionTable.load(Path(sys.argv[1]) / "regions.npy")
review = open_review(Path(sys.argv[1]), "slide.svs", "blake2:abc", table)
while True:
    for number in range(len(table)):
        mark = Mark.on(table.at(number), Verdict.SECOND)
        review.keep(mark)
        print(mark.id, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="There is no SIGKILL here")
def test_marks_survive_a_kill(table, tmp_path, opened):
    table.save(tmp_path / "regions.npy")
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(25)]
    process.send_signal(signal.SIGKILL)
    told += process.stdout.read().split("\n")[:-1]
    process.wait()
    review = opened()
    assert len(told) >= 25
    assert {entry.id for entry in review.entries} >= set(told)
    assert said(review.marks) == dict.fromkeys(range(4), (Verdict.SECOND, ""))


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_a_last_line_that_was_cut_off_is_left_out_and_said_and_the_next_is_whole(table, opened, cut):
    review = opened()
    say(review, table, 0, Verdict.FIRST)
    say(review, table, 1, Verdict.SECOND)
    whole = review.path.read_bytes()
    review.path.write_bytes(whole[:-cut])
    again = opened()
    if cut == 1:  # only the end of the line is missing
        assert set(said(again.marks)) == {0, 1}
        assert not again.notes
    else:
        assert set(said(again.marks)) == {0}
        assert "1 line" in again.notes[0]
        assert "cut off" in again.notes[0]
    say(again, table, 2, Verdict.BOTH)
    assert set(said(opened().marks)) == set(said(again.marks))
    assert review.path.read_bytes().startswith(whole[:-cut])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "does not say which slide"),
        (b'{"kdseg_review": 1, "slide": "sli', "does not say which slide"),
        (b"\xff\xfe\x00rubbish\n", "does not say which slide"),
        (b"[" * 100_000, "does not say which slide"),
        (b'{"kdseg_review": 1, "slide": 7}\n', "damaged"),
        (b'{"kdseg_review": 2, "anything": "new"}\n', "newer version of napari-kdseg. Update"),
        (
            b'{"kdseg_review": 1, "slide": "other.svs", "identity": "blake2:x", "first": "teacher", '
            b'"second": "student", "made_by": {}}\n',
            "another slide, other.svs",
        ),
    ],
)  # fmt: skip
def test_a_file_that_is_no_review_of_this_slide_is_refused_and_left_as_it_is(
    table, opened, content, sentence
):
    path = opened().path
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(SlideError, match=sentence) as refused:
        opened()
    assert "Move it away to begin anew" in str(refused.value)
    assert path.read_bytes() == content


def test_marks_that_cannot_be_written_are_written_with_the_next(table, opened):
    review = opened()
    say(review, table, 0, Verdict.FIRST)
    whole = review.path.read_bytes()
    review.path.unlink()
    review.path.mkdir()  # a folder cannot be written to, also not by root
    with pytest.raises(OutputError, match="written with the next mark"):
        say(review, table, 1, Verdict.SECOND)
    review.path.rmdir()
    review.path.write_bytes(whole)
    say(review, table, 2, Verdict.BOTH)
    assert set(said(opened().marks)) == {0, 1, 2}


def test_a_file_that_was_taken_away_is_written_anew_with_all_that_was_said(table, opened):
    review = opened()
    say(review, table, 0, Verdict.FIRST)
    review.path.unlink()
    say(review, table, 1, Verdict.SECOND)
    assert set(said(opened().marks)) == {0, 1}


def test_marks_follow_their_regions_when_the_same_masks_have_grown(table, opened, regions_of):
    """A mask that was segmented further has other numbers and the same recipe."""
    review = opened()
    for number in range(4):
        say(review, table, number, Verdict.FIRST, f"at {table.at(number).inside}")
    first, second = masks()
    first[0:3, 0:40:2] = 1  # before all others
    grown = regions_of(first, second, CLASSES)
    assert len(grown) == len(table) + 20
    marks = opened(grown).marks.regions()
    assert len(marks) == 4
    for number, mark in marks.items():
        assert mark.comment == f"at {grown.at(number).inside}"


def test_marks_are_carried_over_to_other_masks_and_what_is_gone_is_said(table, opened, regions_of):
    old = opened()
    for number in range(4):
        say(old, table, number, Verdict.FIRST, f"{table.at(number).first_class} {number}")
    before = old.path.read_bytes()
    first, second = masks()
    first[5:15, 5:15] = 0
    first[5:14, 6:15] = 1  # the gland is nearly the same one: 90 of 100 pixels
    second[45:55, 40:50] = 1  # teacher and student agree now
    second[30:36, 10:30] = 0
    second[30:33, 10:18] = 2  # a fifth of what it was
    new = regions_of(first, second, CLASSES, made_by={"n": 2})
    review = opened(new)
    kept = {new.at(number).inside: mark.comment for number, mark in review.marks.regions().items()}
    assert sorted(kept.values()) == ["gland 0", "tumour 1"]
    assert any("2 marks were carried over" in note for note in review.notes)
    assert any(
        f"2 marked regions were not there any more; what was said of it stays in {old.path.name}" in n
        for n in review.notes
    )
    assert old.path.read_bytes() == before
    assert said(opened(new).marks) == said(review.marks)
    assert read_review(review.path).header.carried_from == old.path.name
    assert said(opened(table).marks) == said(old.marks), "the masks before have theirs still"


def test_a_region_of_other_classes_at_the_same_place_is_another_one(table, opened, regions_of):
    review = opened()
    say(review, table, 0, Verdict.FIRST)
    first, second = masks()
    other = regions_of(np.where(first == 1, 2, first), second, CLASSES, made_by={"n": 2})
    assert not opened(other).marks.regions()


def test_it_opens_with_no_regions_and_with_those_on_disk(table, tmp_path, opened):
    assert not opened(table.where(np.zeros(len(table), bool))).marks.regions()
    table.save(tmp_path / "regions.npy")
    review = opened(RegionTable.load(tmp_path / "regions.npy"))
    say(review, table, 2, Verdict.BOTH)
    assert set(said(opened().marks)) == {2}
