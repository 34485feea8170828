"""Masks for other programs: exact outlines, measurements checked with scipy, areas, pyramidal TIFF."""

from __future__ import annotations

import csv
import gzip
import json
import shutil

import numpy as np
import pytest
import scipy.ndimage
import shapely
import tifffile

from napari_kdseg.errors import ConfigurationError, InTheWayError, KdsegError, SlideError
from napari_kdseg.jobs import Control, JobCancelled, Message
from napari_kdseg.masks import ExportConfig, MaskSpec, MaskStore, export_masks, open_masks
from napari_kdseg.masks.tiling import plan_tiles
from napari_kdseg.slides import open_annotation, open_slide, tissue_of

SHAPE, TILE, ADDRESS = (300, 450), 64, "synthetic:900x600?seed=1&mpp=0.5"
CLASSES, COLOURS = ("background", "gland", "tumour"), ((0, 0, 0), (0, 158, 115), (230, 159, 0))


def blobs(seed: int) -> np.ndarray:
    """Smooth areas of three classes, some across the edges of blocks."""
    noise = scipy.ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((2, *SHAPE)), (0, 9, 9))
    return np.where(noise[0] > 0.03, np.where(noise[1] > 0, 1, 2), 0).astype(np.uint8)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A store of classes and probabilities that were computed in its left two thirds."""
    monkeypatch.setattr("napari_kdseg.masks.export.pieces.BLOCK", 128)
    classes = blobs(3)
    probabilities = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
    masks = (
        MaskSpec("labels", "student", "class", CLASSES, COLOURS),
        MaskSpec("probabilities", "student", "probability of the predicted class"),
    )
    with open_slide(ADDRESS) as slide:
        store = MaskStore(tmp_path / "case.ome.zarr", slide)
        grid = {"shape": SHAPE, "downsample": (2.0, 2.0), "tile": TILE}
        with store.begin(masks, **grid, made_by={"checkpoint": "a"}) as writer:
            for tile in plan_tiles(SHAPE, None, TILE, 0):
                if tile.x < 300:
                    cut = np.s_[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
                    writer.write_tile(tile, [classes[cut], probabilities[cut]])
    done = (np.arange(SHAPE[1]) < -(-300 // TILE) * TILE)[None, :]
    return tmp_path / "case.ome.zarr", np.where(done, classes, 255), probabilities


def run(store, folder, **options):
    said = []
    stores = store if isinstance(store, tuple) else (store,)
    files = export_masks(ExportConfig(stores=stores, output=folder, **options), said.append, Control())
    return files, said


def test_outlines_measurements_and_areas(made, tmp_path):
    store, classes, probabilities = made
    files, said = run(store, tmp_path / "out")
    assert [file.name for file in files] == ["case.student.geojson", "case.student.csv"]
    assert any("not finished" in event.text for event in said if isinstance(event, Message))
    with open_slide(ADDRESS) as slide:
        again = open_annotation(files[0], slide, classes=CLASSES, outside=0)
        drawn = again.read_scaled(2.0, 0, 0, *SHAPE)
    np.testing.assert_array_equal(drawn, np.where(classes == 255, 0, classes))

    features = json.loads(files[0].read_text())["features"]
    assert {feature["properties"]["objectType"] for feature in features} == {"detection"}
    rows = {row["class"]: row for row in csv.DictReader(files[1].open())}
    assert list(rows) == ["gland", "tumour"]
    for value, name in ((1, "gland"), (2, "tumour")):
        pieces, count = scipy.ndimage.label(classes == value)
        own = [f for f in features if f["properties"]["classification"]["name"] == name]
        assert int(rows[name]["pieces"]) == len(own) == count
        um2 = np.bincount(pieces.ravel())[1:] * 1.0  # pixels of 2 x 0.5 µm a side
        measured = [feature["properties"]["measurements"] for feature in own]
        assert sorted(m["Area µm^2"] for m in measured) == pytest.approx(sorted(um2))
        means = scipy.ndimage.mean(probabilities / 254, pieces, np.arange(1, count + 1))
        assert sorted(m["Mean probability"] for m in measured) == pytest.approx(sorted(means), abs=1e-4)
        assert float(rows[name]["area_mm2"]) == pytest.approx(um2.sum() / 1e6, rel=1e-5)
        assert float(rows[name]["mean_piece_um2"]) == pytest.approx(um2.mean(), rel=1e-5)
        expected = (probabilities / 254)[classes == value].mean()
        assert float(rows[name]["mean_probability"]) == pytest.approx(expected, abs=1e-3)


def test_shares_of_what_was_predicted_and_of_the_tissue(made, tmp_path):
    store, classes, _ = made
    (file,), _ = run(store, tmp_path / "out", kinds=("csv",), slide=ADDRESS)
    with open_slide(ADDRESS) as slide:
        tissue = tissue_of(slide)
        tissue_px = tissue.mask.sum() * tissue.downsample[0] * tissue.downsample[1]
    rows = {row["class"]: row for row in csv.DictReader(file.open())}
    for value, name in ((1, "gland"), (2, "tumour")):
        count = (classes == value).sum()
        assert float(rows[name]["share_of_predicted"]) == pytest.approx(
            count / (classes != 255).sum(), abs=1e-6
        )
        assert float(rows[name]["share_of_tissue"]) == pytest.approx(4 * count / tissue_px, abs=1e-6)
    with pytest.raises(ConfigurationError, match="masks of another slide"):
        run(store, tmp_path / "other", kinds=("csv",), slide="synthetic:900x600?seed=2&mpp=0.5")


def test_annotations_or_detections_and_compressed(made, tmp_path):
    store, *_ = made
    plain, _ = run(store, tmp_path / "a", kinds=("geojson",), objects="annotation")
    packed, _ = run(store, tmp_path / "b", kinds=("geojson",), objects="annotation", compress=True)
    assert packed[0].name == "case.student.geojson.gz"
    assert gzip.decompress(packed[0].read_bytes()) == plain[0].read_bytes()
    features = json.loads(plain[0].read_bytes())["features"]
    for feature in features:
        about = feature["properties"]
        assert about["objectType"] == "annotation"
        assert about["classification"] in (
            {"name": "gland", "color": [0, 158, 115]},
            {"name": "tumour", "color": [230, 159, 0]},
        )


def boxes(file):
    return [
        shapely.geometry.shape(each["geometry"]).bounds for each in json.loads(file.read_bytes())["features"]
    ]


def test_outlines_count_from_the_scanned_area(made, tmp_path):
    """As QuPath counts, by default: told by the slide, or by the store that was made of it."""
    store, *_ = made
    scanned = f"{ADDRESS}&bounds=12,30,300,200"
    (plain, *_), _ = run(store, tmp_path / "a", kinds=("geojson",), slide=scanned, bounds=False)
    wanted = np.subtract(boxes(plain), (12, 30, 12, 30))
    (moved, *_), _ = run(store, tmp_path / "b", kinds=("geojson",), slide=scanned)
    np.testing.assert_allclose(boxes(moved), wanted, equal_nan=False)
    (same, *_), _ = run(store, tmp_path / "c", kinds=("geojson",))
    assert boxes(same) == boxes(plain), "its slide says nothing"
    about = json.loads((store / "zarr.json").read_bytes())
    about["attributes"]["kdseg"]["slide"]["bounds"] = [30, 12, 200, 300]
    (store / "zarr.json").write_text(json.dumps(about))
    (told, *_), _ = run(store, tmp_path / "d", kinds=("geojson",))
    np.testing.assert_allclose(boxes(told), wanted, equal_nan=False)


def test_a_store_that_does_not_know_what_was_scanned_says_so(made, tmp_path):
    store, *_ = made
    about = json.loads((store / "zarr.json").read_bytes())
    del about["attributes"]["kdseg"]["slide"]["bounds"]
    (store / "zarr.json").write_text(json.dumps(about))
    _, said = run(store, tmp_path / "a", kinds=("geojson",))
    assert any("give the slide" in getattr(event, "text", "") for event in said)
    with pytest.raises(ConfigurationError, match="scanned area is known by the slide"):
        run(store, tmp_path / "b", bounds=True)


def test_a_folder_of_stores_makes_one_table(made, tmp_path):
    """One store is damaged: the others are exported, and it is said."""
    store, *_ = made
    folder = tmp_path / "cohort"
    for name in ("one", "two"):
        shutil.copytree(store, folder / "batch" / f"{name}.ome.zarr")
    files, _ = run(folder, tmp_path / "out", kinds=("csv",))
    assert [file.name for file in files] == ["one.student.csv", "two.student.csv", "summary.csv"]
    rows = list(csv.DictReader(files[-1].open()))
    assert [(row["slide"], row["mask"], row["class"]) for row in rows] == [
        (slide, "student", name) for slide in ("one", "two") for name in ("gland", "tumour")
    ]
    single = list(csv.DictReader(files[0].open()))
    assert {**single[0], "slide": "one", "mask": "student"} == rows[0]

    with pytest.raises(InTheWayError, match=r"summary\.csv is there already"):
        run(folder, tmp_path / "out", kinds=("csv",), names=("student",))
    (folder / "batch" / "one.ome.zarr" / "labels" / "student" / "zarr.json").write_text("{}")
    with pytest.raises(KdsegError, match=r"1 of 2 mask stores .* first reason: .*'student'.*damaged"):
        run(folder, tmp_path / "out2", kinds=("csv",))
    assert sorted(file.name for file in (tmp_path / "out2").iterdir()) == ["summary.csv", "two.student.csv"]
    shutil.copytree(store, folder / "case.ome.zarr")
    with pytest.raises(ConfigurationError, match=r"Several mask stores are named case\.ome\.zarr"):
        run((store, folder), tmp_path / "out3")
    with pytest.raises(ConfigurationError, match="belongs to one mask store"):
        run(folder, tmp_path / "out3", slide=ADDRESS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SlideError, match="holds none"):
        run(tmp_path / "empty", tmp_path / "out3")


def test_a_pyramidal_tiff_holds_the_mask_and_its_scale(made, tmp_path):
    """No slide is needed, every level is that of the mask, and it lies where the mask lies."""
    store, classes, _ = made
    (file,), _ = run(store, tmp_path / "out", kinds=("tiff",))
    mask = open_masks(store)["student"]
    with tifffile.TiffFile(file) as tif:
        (series,) = tif.series
        assert 'PhysicalSizeX="1.0"' in tif.ome_metadata
        for ours, level in zip(mask.levels, series.levels, strict=False):
            np.testing.assert_array_equal(level.asarray(), np.asarray(ours))
    with open_slide(ADDRESS) as slide:
        again = open_annotation(file, slide)
        assert again.classes == CLASSES
        np.testing.assert_array_equal(again.read_scaled(2.0, 0, 0, *SHAPE), classes)


def test_what_cannot_be_exported_is_said(made, tmp_path):
    store, *_ = made
    with pytest.raises(ConfigurationError, match=r"holds no mask .teacher. of classes\. There is: student"):
        run(store, tmp_path / "out", names=("teacher",))
    with pytest.raises(ConfigurationError, match="--slide"):
        run(store, tmp_path / "out", kinds=("dicom",))
    run(store, tmp_path / "out", kinds=("csv",))
    with pytest.raises(InTheWayError, match="there already"):
        run(store, tmp_path / "out", kinds=("csv",))
    run(store, tmp_path / "out", overwrite=True)
    files, _ = run(store, tmp_path / "out", overwrite=True)
    assert len(json.loads(files[0].read_text())["features"]) > 2
    control = Control()
    control.cancel()
    with pytest.raises(JobCancelled):
        export_masks(ExportConfig(stores=(store,), output=tmp_path / "other"), lambda _event: None, control)
    assert not any((tmp_path / "other").iterdir())
