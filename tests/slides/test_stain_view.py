"""Stains unmixed by the law of Beer and Lambert."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import hed_from_rgb, rgb_from_hed, separate_stains

from napari_kdseg.errors import SlideError
from napari_kdseg.slides import Slide, open_slide, stain_view
from napari_kdseg.slides.readers.image_backend import ArrayBackend
from napari_kdseg.slides.views.stain import STEPS


def test_amounts_that_were_mixed_come_out_again():
    amounts = np.random.default_rng(0).uniform(0, 1, (40, 50, 2))
    density = np.concatenate([amounts, np.zeros((40, 50, 1))], axis=2) @ rgb_from_hed
    pixels = np.rint(255 * np.exp(-density)).astype(np.uint8)
    found = stain_view(Slide(ArrayBackend(pixels), "mixed.png")).read(0, 0, 0, 40, 50)
    assert found.dtype == np.uint8
    assert np.abs(found / STEPS - amounts).max() < 0.05


def test_agrees_with_scikit_image_on_tissue(real_data):
    with open_slide(real_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        pixels = slide.read(0, 1000, 1000, 256, 256)
        found = stain_view(slide).read(0, 1000, 1000, 256, 256).astype(float)
    # scikit-image measures density in another unit: in powers of 1e-6 rather than of e, and black is 1e-6 of white
    theirs = np.minimum(separate_stains(pixels, hed_from_rgb)[..., :2] * -np.log(1e-6) * STEPS, 255)
    inside = (pixels > 0).all(axis=2)
    assert (theirs[inside] > 20).mean() > 0.1
    assert np.abs(found - theirs)[inside].max() < 2


def test_glass_has_no_stain_and_the_view_is_lazy(real_data):
    with open_slide("synthetic:60000x40000?seed=3&mpp=0.25") as slide:
        levels = stain_view(slide).as_layers()
        assert levels[0].shape == (40000, 60000, 2)
        assert np.asarray(levels[-1]).mean() > 1
    white = Slide(ArrayBackend(np.full((64, 64, 3), 255, np.uint8)), "white.png")
    assert stain_view(white).read(0, 0, 0, 64, 64).max() == 0


def test_fluorescence_has_none(real_data):
    with open_slide(real_data / "slides" / "test3-TRITC-560.ndpi") as slide, pytest.raises(SlideError):
        stain_view(slide)
