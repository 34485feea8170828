"""One table of formats: what napari, folders, documents and the writers know of suffixes is what stands there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import shapely
from npe2 import PluginManifest
from PIL import Image

from napari_kdseg.errors import ConfigurationError, OutputError
from napari_kdseg.slides import AnnotationShape, open_slide, read_annotations, slides_in, write_annotations
from napari_kdseg.slides.annotations.suffixes import ANNOTATION_SUFFIXES, WRITTEN
from napari_kdseg.slides.formats import (
    FILES,
    FORMATS,
    patterns,
    suffixes,
    titles,
    written_endings,
    written_format,
    written_suffix,
)

ROOT = Path(__file__).resolve().parents[2]


def test_every_suffix_is_of_one_format():
    counts = Counter(suffix for each in FORMATS for suffix in each.suffixes)
    assert set(counts.values()) == {1}
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in counts)


def test_the_manifest_offers_what_the_table_names():
    """Pictures stay with napari's own reader."""
    manifest = PluginManifest.from_file(ROOT / "src" / "napari_kdseg" / "napari.yaml")
    (reader,) = manifest.contributions.readers
    assert reader.filename_patterns == list(patterns("scanner", "instance", "tiff", "folder"))
    assert "*.qptiff" in reader.filename_patterns


def test_documents_name_every_format():
    section = (
        (ROOT / "docs" / "slides.md").read_text().partition("## What is opened")[2].partition("\n## ")[0]
    )
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| ") and "`" in line]
    documented = {title.strip(): set(suffix.replace("`", "").strip().split(", ")) for title, suffix in rows}
    assert documented == {each.title: set(each.suffixes) for each in FORMATS}


def test_documents_name_every_ending_of_outlines():
    table = (ROOT / "docs" / "annotations.md").read_text().partition("## ")[0]
    rows = [
        [cell.strip() for cell in line.split("|")[1:5]]
        for line in table.splitlines()
        if line.startswith("| `.")
    ]
    said = {suffix: row[3] for row in rows for suffix in re.findall(r"`(\.[a-z]+)`", row[0])}
    compressed = said.pop(".gz")  # of any GeoJSON
    said |= {f"{suffix}.gz": compressed for suffix in said if suffix.endswith("json")}
    assert {suffix for suffix in said if suffix not in (*suffixes("tiff"), ".png")} == set(
        ANNOTATION_SUFFIXES
    )
    assert {suffix for suffix in ANNOTATION_SUFFIXES if said[suffix] == "yes"} == set(WRITTEN)


def test_outlines_of_every_ending_that_is_written_can_be_read(tmp_path):
    square = AnnotationShape(shapely.box(2, 3, 40, 50), "tumour")
    for suffix in ANNOTATION_SUFFIXES:
        file = tmp_path / f"a{suffix}"
        if suffix in WRITTEN:
            write_annotations(file, [square])
            (read,) = read_annotations(file)
            assert read.geometry.equals(square.geometry)
        else:
            with pytest.raises(OutputError, match="says no format"):
                write_annotations(file, [square])


def test_every_file_of_a_slide_is_found_in_its_folder(tmp_path):
    names = [f"a{suffix}" for each in FORMATS for suffix in each.suffixes if each.kind in ("scanner", "tiff")]
    for name in [*names, "b.png", "b.txt"]:
        (tmp_path / name).touch()
    assert slides_in(str(tmp_path)) == [str(tmp_path / name) for name in sorted(names)]


@pytest.mark.parametrize("title", titles("picture"))
def test_every_kind_of_picture_opens(title, tmp_path):
    Image.fromarray(np.full((30, 40, 3), 200, np.uint8)).save(tmp_path / "picture", title)
    with open_slide(tmp_path / "picture") as slide:
        assert slide.shape == (30, 40)


def test_suffixes_are_those_of_paths():
    assert suffixes("folder") == (".zarr",)
    assert suffixes("tiff") == (".tif", ".tiff", ".btf")
    assert {".svs", ".dcm", ".tif", ".png"} < set(suffixes(*FILES))
    assert ".zarr" not in suffixes(*FILES)


@pytest.mark.parametrize(
    ("name", "suffix", "written"),
    [
        ("a.svs", ".svs", "svs"),
        ("a.OME.TIF", ".ome.tif", "ome-tiff"),
        ("a.b.ome.tiff", ".ome.tiff", "ome-tiff"),
        ("a.tif", ".tif", "tiff"),
        ("a.btf", ".btf", "tiff"),
        (".ome.tif", ".tif", "tiff"),
        ("a.ome.zarr", ".ome.zarr", "ome-zarr"),
        ("a.zarr", ".zarr", "ome-zarr"),
    ],
)
def test_the_ending_says_which_format_is_written(name, suffix, written):
    assert (written_suffix(Path(name)), written_format(Path(name))) == (suffix, written)


@pytest.mark.parametrize("name", ["a.png", "a.ndpi", ".svs", "svs", "a.zarr.txt"])
def test_other_endings_are_refused_with_those_there_are(name):
    with pytest.raises(ConfigurationError, match=r"\.svs, \.ome\.tif, \.tif or \.ome\.zarr"):
        written_format(Path(name))
    assert written_endings() == ".svs, .ome.tif, .tif or .ome.zarr"
