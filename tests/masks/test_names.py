"""What a folder holds decides by which name it goes, not what it is called."""

from __future__ import annotations

import json

import pytest

from napari_kdseg.masks.names import MENDED_BY, STEP_THAT_MENDED, folder_of, meant, name_of, renamed


def put(store, name, quantity):
    folder = store / "labels" / name
    folder.mkdir(parents=True)
    (folder / "zarr.json").write_text(json.dumps({"attributes": {"kdseg": {"quantity": quantity}}}))
    return folder


def test_a_map_of_then_goes_by_the_name_of_now(tmp_path):
    folder = put(tmp_path, "stage", STEP_THAT_MENDED)
    assert name_of(folder) == "labels/mended_by"
    assert folder_of(tmp_path, "labels/mended_by") == folder
    made_by = {"halo": 16, "masks": ["labels/stage", "probabilities/corrected_on_annotated"]}
    now = {"halo": 16, "masks": ["labels/mended_by", "probabilities/corrected_on_annotated"]}
    assert renamed(tmp_path, made_by) == now


def test_a_segmentation_that_somebody_calls_stage_is_just_that(tmp_path):
    folder = put(tmp_path, "stage", "class")
    assert name_of(folder) == "labels/stage"
    assert folder_of(tmp_path, "labels/stage") == folder
    assert folder_of(tmp_path, "labels/mended_by") == tmp_path / "labels" / "mended_by"
    assert renamed(tmp_path, {"masks": ["labels/stage"]}) == {"masks": ["labels/stage"]}


def test_where_both_are_each_goes_by_its_own_name(tmp_path):
    then, now = (put(tmp_path, name, STEP_THAT_MENDED) for name in ("stage", MENDED_BY))
    assert (name_of(then), name_of(now)) == ("labels/stage", "labels/mended_by")
    assert folder_of(tmp_path, "labels/mended_by") == now


def test_in_a_new_store_it_has_its_new_name(tmp_path):
    assert folder_of(tmp_path, "labels/mended_by") == tmp_path / "labels" / "mended_by"
    assert renamed(tmp_path, {"halo": 16}) == {"halo": 16}


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("stage", {"mended_by"}, "mended_by"),
        ("stage", {"stage", "mended_by"}, "stage"),
        ("mended_by", {"mended_by"}, "mended_by"),
        ("student", {"mended_by"}, "student"),
    ],
)
def test_a_name_of_an_old_script_is_understood(name, known, expected):
    assert meant(name, known) == expected
