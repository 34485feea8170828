from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from napari_kdseg.comparison.scores.distances import (
    class_borders,
    class_contours,
    squared_distances,
    squared_distances_at,
)
from napari_kdseg.training.scores.surfaces import contour


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (50, 70), (131, 40)])
@pytest.mark.parametrize("reach", [1, 3, 64])
@pytest.mark.parametrize("share", [0.0, 0.002, 0.3])
def test_distances_are_those_of_scipy_up_to_the_reach(shape, reach, share):
    seeds = np.random.default_rng(1).random(shape) < share
    exact = np.full(shape, np.inf) if not seeds.any() else distance_transform_edt(~seeds) ** 2
    expected = np.minimum(np.rint(np.minimum(exact, 1e6)), reach**2 + 1)
    np.testing.assert_array_equal(squared_distances(seeds, reach), expected)
    points = np.arange(0, seeds.size, 3)
    found = squared_distances_at(points, np.flatnonzero(seeds), shape[1], reach)
    np.testing.assert_array_equal(found, expected.ravel()[points])


def test_contours_of_all_classes_are_those_of_each():
    classes = np.random.default_rng(2).integers(0, 4, (37, 29)).astype(np.uint8)
    marked = class_contours(classes)
    for value in range(4):
        np.testing.assert_array_equal(marked & (classes == value), contour(classes == value))


def test_borders_lie_between_known_classes_only():
    random = np.random.default_rng(3)
    classes = random.choice(np.array([0, 1, 2, 255], np.uint8), (19, 23), p=[0.5, 0.3, 0.1, 0.1])
    expected = np.zeros(classes.shape, bool)
    for y, x in np.ndindex(classes.shape):
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inside = [classes[p] for p in around if 0 <= p[0] < 19 and 0 <= p[1] < 23]
        expected[y, x] = classes[y, x] != 255 and any(c not in (classes[y, x], 255) for c in inside)
    np.testing.assert_array_equal(class_borders(classes), expected)
