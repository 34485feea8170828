from __future__ import annotations

import json

import pytest

from napari_kdseg.errors import SlideError
from napari_kdseg.slides import slides_in


def test_a_folder_of_slides_is_its_slides(tmp_path):
    for name in (
        "b.svs",
        "a.TIFF",
        "notes.txt",
        ".hidden.svs",
        "b.svs.kdseg.json",
        "c.mrxs",
        "c/Data0001.dat",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for name, attributes in (
        ("d.ome.zarr", {"ome": {}}),
        ("masks.ome.zarr", {"ome": {}, "kdseg": {"slide": {}}}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "zarr.json").write_text(json.dumps({"attributes": attributes}))
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom" / "1.dcm").write_bytes(b"")
    names = ["a.TIFF", "b.svs", "c.mrxs", "d.ome.zarr", "dicom"]
    assert slides_in(str(tmp_path)) == [str(tmp_path / name) for name in names]


def test_a_slide_is_itself(tmp_path):
    for place in ("synthetic:10x10", "nowhere.svs", __file__):
        assert slides_in(place) == [place]
    (tmp_path / "1.dcm").write_bytes(b"")
    assert slides_in(str(tmp_path)) == [str(tmp_path)]


def test_a_folder_without_slides_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(SlideError, match="holds no slide"):
        slides_in(str(tmp_path))
