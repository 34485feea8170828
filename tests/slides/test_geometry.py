from __future__ import annotations

import numpy as np
import pytest

from napari_kdseg.slides import layer_transform
from napari_kdseg.slides.geometry import units


def test_level_0_lies_on_its_own_centres():
    assert layer_transform(1, 0.25) == ((0.25, 0.25), (0.0, 0.0))


def test_without_scale_pixels_are_the_unit():
    assert layer_transform((4, 2), None) == ((4.0, 2.0), (1.5, 0.5))
    assert units(None) == ("pixel", "pixel")
    assert units((0.5, 0.5)) == ("um", "um")


@pytest.mark.parametrize("downsample", [2, 3.0, (4.000152, 16.5)])
def test_a_pixel_sits_in_the_middle_of_what_it_covers(downsample):
    mpp = (0.5, 0.25)
    scale, translate = layer_transform(downsample, mpp)
    factors = np.broadcast_to(downsample, 2)
    for index in (0, 7):
        first, last = index * factors, (index + 1) * factors - 1  # level-0 pixel centres at its edges
        np.testing.assert_allclose(
            np.multiply(scale, index) + translate, (first + last) / 2 * mpp, equal_nan=False
        )
