"""Masks for other programs: exact outlines, measurements checked with scipy, areas, pyramidal TIFF."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import scipy.ndimage
import tifffile

from napari_kdseg.errors import ConfigurationError, InTheWayError
from napari_kdseg.jobs import Control, JobCancelled, Message
from napari_kdseg.masks import ExportConfig, MaskSpec, MaskStore, export_masks
from napari_kdseg.masks.tiling import plan_tiles
from napari_kdseg.slides import open_annotation, open_slide

SHAPE, TILE, ADDRESS = (300, 450), 64, "synthetic:900x600?seed=1&mpp=0.5"
CLASSES, COLOURS = ("background", "gland", "tumour"), ((0, 0, 0), (0, 158, 115), (230, 159, 0))


def blobs(seed: int) -> np.ndarray:
    """Smooth areas of three classes, some across the edges of blocks."""
    noise = scipy.ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((2, *SHAPE)), (0, 9, 9))
    return np.where(noise[0] > 0.03, np.where(noise[1] > 0, 1, 2), 0).astype(np.uint8)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A store of classes and probabilities that were computed in its left two thirds."""
    monkeypatch.setattr("napari_kdseg.masks.export.masks.BLOCK", 128)
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
    files = export_masks(ExportConfig(store=store, output=folder, **options), said.append, Control())
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


def test_a_pyramidal_tiff_holds_the_mask(made, tmp_path):
    store, classes, _ = made
    (file,), _ = run(store, tmp_path / "out", kinds=("tiff",), slide=ADDRESS)
    with tifffile.TiffFile(file) as tif:
        np.testing.assert_array_equal(tif.series[0].asarray(), classes)


def test_what_cannot_be_exported_is_said(made, tmp_path):
    store, *_ = made
    with pytest.raises(ConfigurationError, match=r"holds no mask .teacher. of classes\. There is: student"):
        run(store, tmp_path / "out", names=("teacher",))
    with pytest.raises(ConfigurationError, match="--slide"):
        run(store, tmp_path / "out", kinds=("tiff",))
    run(store, tmp_path / "out", kinds=("csv",))
    with pytest.raises(InTheWayError, match="there already"):
        run(store, tmp_path / "out", kinds=("csv",))
    run(store, tmp_path / "out", overwrite=True)
    files, _ = run(store, tmp_path / "out", overwrite=True)
    assert len(json.loads(files[0].read_text())["features"]) > 2
    control = Control()
    control.cancel()
    with pytest.raises(JobCancelled):
        export_masks(ExportConfig(store=store, output=tmp_path / "other"), lambda _event: None, control)
    assert not any((tmp_path / "other").iterdir())
