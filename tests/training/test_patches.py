"""Tiles cut out of an annotated slide: what is on them, and that a validation split is spatially separate."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import shapely
from PIL import Image

from napari_kdseg.errors import DataError, OutputError
from napari_kdseg.jobs import Control, JobCancelled, Step
from napari_kdseg.slides import AnnotationShape, open_annotation, open_slide, write_annotations
from napari_kdseg.training import DataConfig, cut_tiles, discover

ADDRESS = "synthetic:6000x5000?seed=1&mpp=0.5"


@pytest.fixture(scope="module")
def slide():
    with open_slide(ADDRESS) as opened:
        yield opened


@pytest.fixture(scope="module")
def annotation(slide):
    return open_annotation(ADDRESS, slide)


def manifest(folder):
    with (folder / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_training_folder(slide, annotation, tmp_path):
    seen = []
    folder = cut_tiles(slide, annotation, tmp_path / "tiles", size=64, mpp=2.0, count=40, emit=seen.append)
    lines = manifest(folder)
    assert len(lines) == 40
    assert [event.done for event in seen if isinstance(event, Step)] == list(range(1, 41))
    assert sum(float(line["foreground_fraction"]) > 0 for line in lines) >= 30
    for line in lines[::7]:
        y, x = int(line["y"]) // 4, int(line["x"]) // 4
        image = np.asarray(Image.open(folder / "images" / f"{line['tile']}.png"))
        mask = np.asarray(Image.open(folder / "masks" / f"{line['tile']}.png"))
        np.testing.assert_array_equal(image, slide.read_scaled(4.0, y, x, 64, 64))
        np.testing.assert_array_equal(mask, annotation.read_scaled(4.0, y, x, 64, 64))
    found = discover(DataConfig(folder=folder))
    assert found.classes == annotation.classes
    assert found.mpp == 2.0
    assert len({tile.patient for tile in found.train}) > 1
    assert not {tile.patient for tile in found.train} & {tile.patient for tile in found.val}


def test_no_two_blocks_share_a_pixel(slide, annotation, tmp_path):
    folder = cut_tiles(
        slide, annotation, tmp_path / "tiles", size=64, mpp=4.0, count=10**6, stride=40, foreground=1
    )
    owner = np.full((5000 // 8 + 1, 6000 // 8 + 1), -1)
    lines = manifest(folder)
    blocks = sorted({line["patient"] for line in lines})
    assert len(blocks) > 4
    for line in lines:
        y, x, block = int(line["y"]) // 8, int(line["x"]) // 8, blocks.index(line["patient"])
        place = owner[y : y + 64, x : x + 64]
        assert set(np.unique(place)) <= {-1, block}
        place[:] = block


def test_the_same_tiles_every_time(slide, annotation, tmp_path):
    def names(name, **changes):
        folder = cut_tiles(slide, annotation, tmp_path / name, size=64, mpp=4.0, count=12, **changes)
        return [line["tile"] for line in manifest(folder)]

    assert names("a") == names("b")
    assert names("a2") != names("c", seed=1)


def test_classes_take_turns(slide, tmp_path):
    rare = np.zeros((50, 60), np.uint8)
    rare[:, :30] = 1
    rare[44:47, 50:53] = 2
    rare[:10] = 255
    drawn = open_annotation(rare, slide)
    folder = cut_tiles(slide, drawn, tmp_path / "tiles", size=32, mpp=4.0, count=10)
    lines = manifest(folder)
    masks = [np.asarray(Image.open(folder / "masks" / f"{line['tile']}.png")) for line in lines]
    assert sum(2 in mask for mask in masks) >= 1
    assert all((mask == 255).mean() <= 0.5 for mask in masks)


def test_a_cancelled_cut_leaves_nothing(slide, annotation, tmp_path):
    control = Control()

    def stop(event):
        if isinstance(event, Step) and event.done == 3:
            control.cancel()

    with pytest.raises(JobCancelled):
        cut_tiles(
            slide, annotation, tmp_path / "tiles", size=64, mpp=4.0, count=12, emit=stop, control=control
        )
    assert list(tmp_path.iterdir()) == []


def test_places_and_slides_that_do_not_work(slide, annotation, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="holds something already"):
        cut_tiles(slide, annotation, tmp_path / "full", size=64, mpp=4.0)
    nothing = open_annotation(np.full((50, 60), 255, np.uint8), slide)
    with pytest.raises(DataError, match="Annotate more"):
        cut_tiles(slide, nothing, tmp_path / "tiles", size=64, mpp=4.0)
    with pytest.raises(DataError, match="smaller tiles"):
        cut_tiles(slide, annotation, tmp_path / "tiles", size=4096, mpp=4.0)


def test_outlines_beside_the_slide_are_its_mask(tmp_path):
    with open_slide("synthetic:700x600?seed=1&mpp=0.5") as truth:
        Image.fromarray(truth.read(0, 0, 0, 600, 700)).save(tmp_path / "case.png")
    with open_slide(tmp_path / "case.png", mpp=0.5) as slide:
        with pytest.raises(DataError, match="no annotation of its name beside it"):
            cut_tiles(slide, None, tmp_path / "tiles", size=64, mpp=1.0)
        left, right = shapely.box(0, 0, 300, 600), shapely.box(300, 0, 500, 600)
        shapes = [AnnotationShape(left, "tumour"), AnnotationShape(right, "background")]
        write_annotations(tmp_path / "case.geojson", shapes)
        folder = cut_tiles(slide, None, tmp_path / "tiles", size=64, mpp=1.0)
    assert (folder / "classes.txt").read_text().split() == ["background", "tumour"]
    lines = manifest(folder)
    assert len(lines) > 10
    for line in lines:
        mask = np.asarray(Image.open(folder / "masks" / f"{line['tile']}.png"))
        x = int(line["x"]) + 2 * np.arange(64) + 1  # centres of the tile's pixels, between two of level 0
        expected = np.select([x < 300, x < 500], [1, 0], 255)
        np.testing.assert_array_equal(mask, np.broadcast_to(expected, (64, 64)))
