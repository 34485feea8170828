from __future__ import annotations

import numpy as np
import pytest

from napari_kdseg.slides import Slide, open_slide, tissue_mask
from napari_kdseg.slides.readers.image_backend import ArrayBackend
from napari_kdseg.synthetic.histology import Tissue


def test_finds_the_tissue_of_a_synthetic_slide():
    with open_slide("synthetic:20000x16000?seed=2&mpp=0.5") as slide:
        found = tissue_mask(slide, max_size=500)
        assert found.mask.shape == (400, 500)
        assert found.downsample == (40.0, 40.0)
        truth = Tissue(8000.0, 10000.0, 2).tissue(*((np.arange(n) + 0.5) * 20 for n in (400, 500))) > 0
    assert (found.mask == truth).mean() > 0.97


def test_covers_asks_in_level_0_pixels():
    pixels = np.full((1000, 800, 3), 250, np.uint8)
    pixels[400:600, 200:300] = (200, 80, 150)
    found = tissue_mask(Slide(ArrayBackend(pixels), "array"), max_size=100)
    assert found.covers(500, 250, 10, 10)
    assert found.covers(0, 0, 1000, 800)
    assert not found.covers(0, 0, 300, 800)
    assert not found.covers(-500, -500, 100, 100)
    assert not found.covers(5000, 5000, 100, 100)
    assert found.fraction == pytest.approx(
        200 * 100 / (1000 * 800), rel=0.35
    )  # a blurred rim of half a pixel


@pytest.mark.parametrize(("colour", "share"), [((200, 80, 150), 1.0), ((250, 250, 250), 0.0)])
def test_all_tissue_and_all_glass(colour, share):
    pixels = np.full((300, 300, 3), colour, np.uint8)
    assert tissue_mask(Slide(ArrayBackend(pixels), "array")).fraction == share


def test_real_slides(real_data):
    shares = {
        "CMU-1-Small-Region.svs": (0.25, 0.5),
        "TCGA-CR-7395-01A-01-TS1.svs": (0.5, 0.75),
        "test3-TRITC-560.ndpi": (0.2, 0.7),
    }
    for name, (low, high) in shares.items():
        with open_slide(real_data / "slides" / name) as slide:
            assert low < tissue_mask(slide).fraction < high, name
