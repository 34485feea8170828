from collections import Counter

import numpy as np

from napari_kdseg.masks.reduction import dequantise, quantise, reduce_classes, reduce_probabilities


def naive(block, combine):
    height, width = ((side + 1) // 2 for side in block.shape)
    out = np.full((height, width), 255, np.uint8)
    for y in range(height):
        for x in range(width):
            known = [int(v) for v in block[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel() if v != 255]
            if known:
                out[y, x] = combine(known)
    return out


def mode(values):
    return Counter(values).most_common(1)[0][0]  # ties: the first seen


def test_classes_are_reduced_by_the_mode_of_what_was_computed():
    random = np.random.default_rng(0)
    for shape in [(8, 8), (7, 9), (1, 1), (1, 6)]:
        block = random.choice(np.array([0, 1, 2, 7, 255], np.uint8), shape)
        np.testing.assert_array_equal(reduce_classes(block), naive(block, mode))


def test_probabilities_are_reduced_by_the_mean_of_what_there_is():
    random = np.random.default_rng(1)
    block = random.integers(0, 256, (17, 31)).astype(np.uint8)
    block[random.random(block.shape) < 0.3] = 255
    expected = naive(block, lambda values: int(np.floor(np.mean(values) + 0.5)))
    np.testing.assert_array_equal(reduce_probabilities(block), expected)


def test_quantisation_is_exact_at_the_ends_and_to_half_a_step_between():
    values = np.array([[0.0, 1.0, np.nan, 0.3, 1.7]], np.float32)
    stored = quantise(values)
    assert stored.tolist() == [[0, 254, 255, 76, 254]]
    back = dequantise(stored)
    assert np.isnan(back[0, 2])
    assert abs(back[0, 3] - 0.3) <= 0.5 / 254
