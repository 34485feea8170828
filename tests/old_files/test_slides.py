"""What was kept of slides: the slide that was written, notes beside it and away from it, outlines in each format."""

from __future__ import annotations

import json

import numpy as np
import pytest
from shapely.geometry import Polygon

from napari_kdseg.slides import open_annotation, open_slide, read_annotations, tissue_of
from napari_kdseg.training import DataConfig, discover

WITH_HOLE = Polygon(
    [(10, 10), (90, 10), (90, 70), (10, 70)], holes=[[(30, 30), (30, 50), (60, 50), (60, 30)]]
)
CORNER = Polygon([(100.5, 20.25), (180, 20.25), (140, 100.75)])


def test_slides_are_known_by_the_identity_of_then(old):
    """Notes and masks of a slide are found by it."""
    for name, identity in json.loads((old / "expected" / "identities.json").read_text()).items():
        with open_slide(name if ":" in name else old / name) as slide:
            assert slide.identity() == identity, name


def test_a_slide_that_was_written(old):
    with open_slide(old / "slide.tif") as slide:
        assert slide.shape == (128, 160)
        assert slide.mpp == (1.0, 1.0)
        annotation = open_annotation(old / "slide.gland.tif", slide)
        glands = annotation.read_scaled(1.0, 0, 0, 128, 160)
    assert {*np.unique(glands)} == {0, 1}


def test_a_scale_that_a_person_gave(old):
    with open_slide(old / "plain.png") as slide:
        assert slide.mpp == (0.48, 0.52)


def test_tissue_that_a_person_drew(old):
    """Beside the slide; and in the results folder, for a slide that has no place beside it."""
    with open_slide(old / "slide.tif") as slide:
        tissue = tissue_of(slide)
    expected = np.zeros((64, 80), bool)
    expected[:, :66] = True
    np.testing.assert_array_equal(tissue.mask, expected)
    assert tissue.edited
    assert (tissue.threshold, tissue.min_piece_um2, tissue.min_hole_um2) == (0.25, 50.0, None)
    with open_slide("synthetic:3000x2000?seed=2&mpp=0.5") as slide:
        np.testing.assert_array_equal(tissue_of(slide).mask, np.eye(200, 300, dtype=bool))


@pytest.mark.parametrize("name", ["qupath.geojson", "asap.xml", "imagescope.xml"])
def test_outlines(old, name):
    first, second = read_annotations(old / "annotations" / name)
    assert (first.class_name, second.class_name) == ("tumour", "stroma")
    assert second.geometry.equals_exact(CORNER, 0) or second.geometry.equals(CORNER)
    if name == "qupath.geojson":  # the others hold less, see docs/annotations.md
        assert first.geometry.equals(WITH_HOLE)
        assert (first.colour, first.name, second.locked) == ((200, 30, 60), "first", True)


def test_tiles_that_were_cut(old):
    collection = discover(DataConfig(folder=old / "tiles"))
    tiles = [*collection.train, *collection.val, *collection.test]
    assert len(tiles) == 18
    assert collection.mpp == 1.0
    assert {tile.patient for tile in tiles} >= {"block-0-0", "block-0-1"}
