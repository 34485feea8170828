"""Counts of blocks against loops over pixels, and scores of their sums against those of whole images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_kdseg.comparison.scores.bands import EDGES, band_counts, band_edges, band_reach, bands_of
from napari_kdseg.comparison.scores.calibration import calibration_counts, calibration_error
from napari_kdseg.comparison.scores.contours import contour_counts, hausdorff, surface_dice
from napari_kdseg.comparison.scores.counting import confusion_counts, differing, disagreement_codes
from napari_kdseg.comparison.scores.distances import class_borders
from napari_kdseg.comparison.scores.figures import add_figures, as_note, from_note
from napari_kdseg.errors import DataError
from napari_kdseg.training.scores.calibration import CalibrationError
from napari_kdseg.training.scores.surfaces import surface_scores

NAMES = ("background", "benign", "tumour")


def masks(seed, shape=(60, 75), unknown=0.05):
    random = np.random.default_rng(seed)
    first = random.choice(np.array([0, 1, 2, 255], np.uint8), shape, p=[0.4, 0.35, 0.25 - unknown, unknown])
    second = np.where(random.random(shape) < 0.3, random.integers(0, 3, shape), first).astype(np.uint8)
    return first, second


@pytest.mark.parametrize("count", [3, 30])
def test_confusion_is_that_of_a_loop(count):
    first, second = masks(0)
    second[0, :5] = 255
    names = NAMES + tuple(f"c{i}" for i in range(3, count))
    expected = np.zeros((count, count), int)
    for a, b in zip(first.ravel(), second.ravel(), strict=True):
        if 255 not in (a, b):
            expected[a, b] += 1
    np.testing.assert_array_equal(confusion_counts(first, differing(first, second), names), expected)


@pytest.mark.parametrize("which", [0, 1])
def test_a_class_without_a_name_is_refused(which):
    pair = [np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)]
    pair[which][2, 2] = 3
    with pytest.raises(DataError, match="more classes than the 3 named"):
        confusion_counts(pair[0], differing(*pair), NAMES)


def test_codes_are_those_of_every_pair():
    first, second = masks(1)
    codes = disagreement_codes(first, differing(first, second))
    for a, b, code in zip(first.ravel(), second.ravel(), codes.ravel(), strict=True):
        known = 0 if a == b else 1 if b == 0 else 2 if a == 0 else 3
        assert code == (255 if 255 in (a, b) else known)


def in_tiles(shape, tile):
    for y in range(0, shape[0], tile):
        for x in range(0, shape[1], tile):
            yield y, x, min(tile, shape[0] - y), min(tile, shape[1] - x)


def windows(pair, tile, margin):
    """Cut two images into windows with a margin, 255 beyond them, and the core of each."""
    padded = [np.pad(mask, margin, constant_values=255) for mask in pair]
    for y, x, height, width in in_tiles(pair[0].shape, tile):
        cut = np.s_[y : y + height + 2 * margin, x : x + width + 2 * margin]
        yield *(mask[cut] for mask in padded), np.s_[margin : margin + height, margin : margin + width]


def blobs(seed, shape=(60, 75)):
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(seed)
    noise = gaussian_filter(random.random(shape), 4)
    first = np.digitize(noise, np.quantile(noise, [0.5, 0.8])).astype(np.uint8)
    noise += 0.35 * noise.std() * gaussian_filter(random.standard_normal(shape), 2) * 5
    second = np.digitize(noise, np.quantile(noise, [0.5, 0.8])).astype(np.uint8)
    first[10:14, 20:30] = 255
    return first, second


@pytest.mark.parametrize("tile", [13, 40])
@pytest.mark.parametrize("seed", [0, 1])
def test_surface_scores_of_tiles_are_those_of_the_image(tile, seed):
    pair, reach, spacing = blobs(seed), 40, 0.7
    counts = sum(contour_counts(a, b, core, 3, reach) for a, b, core in windows(pair, tile, reach + 1))
    known = (pair[0] != 255) & (pair[1] != 255)
    for value in (1, 2):
        ours = (pair[1] == value) & known, (pair[0] == value) & known
        for tolerance in (0.7, 1.4, 3.0):
            distance, dice = surface_scores(*ours, tolerance, spacing)
            assert 0.1 < dice < 1
            assert surface_dice(counts[value], tolerance, spacing) == pytest.approx(dice, abs=1e-12)
            assert hausdorff(counts[value], spacing) == pytest.approx(distance, rel=1e-12)


def test_what_lies_beyond_the_reach_is_said():
    first, second = np.zeros((2, 40, 90), np.uint8)
    first[5:15, 5:15], second[5:15, 60:70] = 1, 1
    (window,) = windows((first, second), 100, 9)
    counts = contour_counts(*window, 2, 8)
    assert hausdorff(counts[1], 1.0) == np.inf
    assert surface_dice(counts[1], 8.0, 1.0) == 0.0
    with pytest.raises(ValueError, match="up to 8 only"):
        surface_dice(counts[1], 9.0, 1.0)
    assert np.isnan(hausdorff(counts[0] * 0, 1.0))
    empty = contour_counts(window[0], window[0] * 0, window[2], 2, 8)
    assert (hausdorff(empty[1], 1.0), surface_dice(empty[1], 2.0, 1.0)) == (np.inf, 0.0)


def test_bands_are_those_of_a_loop():
    first, second = blobs(3)
    spacing = 1.5
    margin, edges = band_reach(spacing) + 1, band_edges(spacing)
    assert edges == EDGES
    total = 0
    for a, b, core in windows((first, second), 25, margin):
        bands = bands_of(a, spacing)
        total = total + band_counts(bands[core], a[core], b[core], 3, len(edges) + 1)
    border = np.argwhere(class_borders(first))
    expected = np.zeros((len(edges) + 1, 3, 3), int)
    for y, x in np.ndindex(first.shape):
        if 255 in (first[y, x], second[y, x]):
            continue
        distance = np.sqrt(((border - (y, x)) ** 2).sum(axis=1).min()) * spacing
        expected[sum(distance > edge + 1e-9 for edge in edges), first[y, x], second[y, x]] += 1
    np.testing.assert_array_equal(total, expected)
    assert (expected.sum(axis=(1, 2)) > 0).sum() >= 4


def test_calibration_is_that_of_single_pixels():
    first, second = masks(4)
    stored = np.random.default_rng(5).integers(127, 256, first.shape).astype(np.uint8)  # 255: none kept
    counts = add_figures(
        {"c": calibration_counts(*(m[y : y + h, x : x + w] for m in (first, second, stored)))}
        for y, x, h, w in in_tiles(first.shape, 17)
    )["c"]
    known = (first != 255) & (second != 255) & (stored != 255)
    # Two classes, the predicted one with the stored probability: what the error of a network is computed of.
    sure = torch.from_numpy(stored[known] / np.float64(254))
    probabilities = torch.stack([sure, 1 - sure])[None, :, None]
    truth = torch.from_numpy((first != second)[known].astype(np.int64))[None, None]
    judge = CalibrationError()
    judge.add(probabilities, truth)
    assert calibration_error(counts) == pytest.approx(judge.value(), rel=1e-6)  # it adds up float32
    assert np.isnan(calibration_error(counts * 0))


def test_a_journal_keeps_figures():
    figures = {"a/b:x": np.array([[0, 3], [2**40, 0]]), "a:y": np.arange(3 * 2 * 4098).reshape(3, 2, 4098)}
    again = from_note(as_note(figures))
    assert again.keys() == figures.keys()
    for key, counts in figures.items():
        np.testing.assert_array_equal(again[key], counts)
