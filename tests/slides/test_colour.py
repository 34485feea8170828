"""Colour profiles: applied by LittleCMS, only where they change something, and to networks only when asked."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageCms

from napari_kdseg.errors import SlideError
from napari_kdseg.slides import Slide, in_srgb, open_slide, with_colours
from napari_kdseg.slides.readers.image_backend import ArrayBackend
from napari_kdseg.slides.views.colour import changes_colours, profile_name


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8)


def profiled(pixels, profile="adobergb") -> Slide:
    return Slide(ArrayBackend(pixels, icc=imagecodecs.cms_profile(profile)), "profiled.png")


def test_every_level_and_region_is_what_littlecms_makes_of_it(pixels):
    slide = profiled(pixels)
    shown = in_srgb(slide)
    source = ImageCms.ImageCmsProfile(io.BytesIO(slide.icc))
    expected = ImageCms.profileToProfile(Image.fromarray(pixels), source, ImageCms.createProfile("sRGB"))
    np.testing.assert_array_equal(np.asarray(shown.as_layers()[0]), np.asarray(expected))
    np.testing.assert_array_equal(shown.read(0, 300, 500, 300, 300), np.asarray(expected)[300:600, 500:800])
    assert (shown.shape, shown.mpp, len(shown.levels)) == (slide.shape, slide.mpp, len(slide.levels))


def test_adobe_red_is_redder_on_an_srgb_screen():
    """(200, 60, 60) in Adobe RGB lies further out than the same numbers in sRGB; grey stays grey."""
    slide = profiled(np.tile(np.uint8([[[200, 60, 60], [128, 128, 128]]]), (64, 32, 1)))
    red, grey = in_srgb(slide).read(0, 0, 0, 1, 2)[0].astype(int)
    assert red[0] > 215
    assert red[1] < 62
    assert np.ptp(grey) <= 1


def test_profile_is_named_and_told_from_srgb(pixels, real_data):
    assert profile_name(profiled(pixels)) == "Adobe RGB (compatible)"
    assert changes_colours(profiled(pixels))
    with open_slide(real_data / "slides" / "TCGA-CR-7395-01A-01-TS1.svs") as slide:
        assert profile_name(slide) == "sRGB IEC61966-2.1"
        assert not changes_colours(slide)


@pytest.mark.parametrize("icc", [None, b"this is no profile"])
def test_slide_without_a_usable_profile_says_so(pixels, icc):
    slide = Slide(ArrayBackend(pixels, icc=icc), "plain.png")
    assert profile_name(slide) is None
    with pytest.raises(SlideError, match="no colour profile"):
        in_srgb(slide)


def test_networks_see_the_stored_pixels_unless_told_otherwise(pixels):
    slide = profiled(pixels)
    assert with_colours(slide, "stored") is slide
    assert not np.array_equal(with_colours(slide, "srgb").read(0, 0, 0, 9, 9), slide.read(0, 0, 0, 9, 9))
