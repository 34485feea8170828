"""What people said of a slide is found again: beside it, or in the results folder, and only for that slide."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from napari_kdseg.errors import SlideError
from napari_kdseg.slides import open_slide, sidecar, tissue_mask, tissue_of
from napari_kdseg.slides.sidecar import keep_mpp
from napari_kdseg.slides.tissue.kept import keep_tissue, kept_tissue


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KDSEG_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "slides"


@pytest.fixture
def picture(tmp_path):
    """A slide of 400 x 300 px that does not know its scale: a pink square on white."""
    pixels = np.full((300, 400, 3), 250, np.uint8)
    pixels[100:200, 100:250] = (200, 80, 150)
    path = tmp_path / "slides" / "tumour 7.png"
    path.parent.mkdir()
    Image.fromarray(pixels).save(path)
    return path


def test_scale_that_was_given_is_there_next_time(picture, home):
    with open_slide(picture) as slide:
        assert slide.mpp is None
        assert keep_mpp(slide, (0.5, 0.25)) == picture.with_name("tumour 7.png.kdseg.json")
    with open_slide(picture) as slide:
        assert slide.mpp == (0.5, 0.25)
        assert slide.metadata.mpp is None
        keep_mpp(slide, None)
    with open_slide(picture, mpp=2.0) as slide:
        assert slide.mpp == (2.0, 2.0)
    assert open_slide(picture).mpp is None
    assert not home.exists()


def test_notes_of_another_file_of_that_name_are_not_believed(picture):
    with open_slide(picture) as slide:
        keep_mpp(slide, (0.5, 0.5))
    Image.fromarray(np.zeros((50, 60, 3), np.uint8)).save(picture)
    assert open_slide(picture).mpp is None


def test_folder_that_cannot_be_written_to(picture, home, monkeypatch):
    """The notes are kept in the results folder, follow a slide that moves, and come home when they can."""
    beside = picture.with_name("tumour 7.png.kdseg.json")
    real = sidecar.write_whole

    def refuse(path, content):
        if path.parent == picture.parent:
            raise PermissionError(13, "Permission denied", str(path))
        real(path, content)

    monkeypatch.setattr(sidecar, "write_whole", refuse)
    with open_slide(picture) as slide:
        assert keep_mpp(slide, (0.5, 0.5)).parent == home
    moved = picture.parent.parent / "moved.png"
    shutil.copy(picture, moved)
    assert open_slide(moved).mpp == (0.5, 0.5)
    monkeypatch.undo()
    monkeypatch.setenv("KDSEG_HOME", str(home.parent))
    with open_slide(picture) as slide:
        assert slide.mpp == (0.5, 0.5)
        assert keep_mpp(slide, (0.4, 0.4)) == beside
    assert open_slide(picture).mpp == (0.4, 0.4)
    assert not list(home.iterdir())


def test_damaged_notes_are_reported_and_the_slide_opens(picture):
    picture.with_name("tumour 7.png.kdseg.json").write_text('{"mpp": "half"')
    with pytest.warns(UserWarning, match="were ignored"):
        assert open_slide(picture).mpp is None


def test_edited_tissue_is_used_instead_of_a_computed_one(picture):
    with open_slide(picture, mpp=0.5) as slide:
        found = tissue_mask(slide)
        assert tissue_of(slide).record() == found.record()
        drawn = found.mask.copy()
        drawn[:50] = True
        keep_tissue(slide, type(found)(drawn, found.downsample, found.threshold, 10.0, 20.0))
    with open_slide(picture, mpp=0.5) as slide:
        kept = tissue_of(slide)
        np.testing.assert_array_equal(kept.mask, drawn)
        assert (kept.edited, kept.min_piece_um2, kept.min_hole_um2) == (True, 10.0, 20.0)
        assert kept.record() != found.record()
        assert kept.downsample == found.downsample
        keep_tissue(slide, None)
        assert kept_tissue(slide) is None


def test_a_computed_mask_is_remembered_until_a_person_keeps_another(picture):
    with open_slide(picture, mpp=0.5) as slide:
        computed = tissue_of(slide)
    with open_slide(picture, mpp=0.5) as slide:
        assert tissue_of(slide) is computed
        keep_tissue(slide, replace(computed, mask=~computed.mask, min_piece_um2=10.0, min_hole_um2=20.0))
        np.testing.assert_array_equal(tissue_of(slide).mask, ~computed.mask)
    with open_slide(picture, mpp=1.0) as slide:
        keep_tissue(slide, None)
        assert tissue_of(slide) is not computed, "another scale"


def test_sizes_in_square_micrometres(picture):
    """The square has 150 x 100 px: 3750 µm² at 0.5 µm a pixel."""
    with open_slide(picture) as slide:
        with pytest.raises(SlideError, match="scale"):
            tissue_mask(slide, min_piece_um2=1.0)
        slide.mpp = 0.5
        assert tissue_mask(slide, min_piece_um2=3000).mask.any()
        assert not tissue_mask(slide, min_piece_um2=5000).mask.any()
        assert tissue_mask(slide, min_piece_um2=3000).min_piece_um2 == pytest.approx(3000, rel=0.01)


def test_holes_below_the_minimum_are_tissue(tmp_path):
    pixels = np.full((300, 400, 3), 250, np.uint8)
    pixels[50:250, 50:350] = (200, 80, 150)
    pixels[100:140, 100:140] = 250  # 1600 px: 400 µm² at 0.5 µm
    Image.fromarray(pixels).save(tmp_path / "holed.png")
    with open_slide(tmp_path / "holed.png", mpp=0.5) as slide:
        assert tissue_mask(slide, min_hole_um2=800).mask[120, 120]
        assert not tissue_mask(slide, min_hole_um2=100).mask[120, 120]


def test_planes_are_named(tmp_path):
    import tifffile

    pixels = np.zeros((5, 2, 64, 64), np.uint16)
    pixels[0, 1] = 7
    tifffile.imwrite(tmp_path / "stack.ome.tif", pixels, metadata={"axes": "ZCYX"}, tile=(32, 32))
    with open_slide(tmp_path / "stack.ome.tif") as slide:
        assert slide.plane == "focus plane 1 of 5"
        assert slide.channels == 2
        assert slide.read(0, 0, 0, 1, 1)[0, 0, 1] == 7
    with open_slide(tmp_path / "stack.ome.tif") as slide:
        assert slide.read(0, 0, 0, 64, 64).shape == (64, 64, 2)
