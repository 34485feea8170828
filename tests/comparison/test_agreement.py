from __future__ import annotations

import json

import numpy as np
import pytest

from napari_kdseg.comparison import confusion, disagreement, disagreement_levels, summarise
from napari_kdseg.errors import DataError


def naive_code(teacher: int, student: int) -> int:
    if 255 in (teacher, student):
        return 255
    if teacher == student:
        return 0
    if student == 0:
        return 1
    return 2 if teacher == 0 else 3


def random_mask(shape, seed):
    return np.random.default_rng(seed).choice(
        np.array([0, 1, 2, 255], np.uint8), shape, p=[0.4, 0.3, 0.2, 0.1]
    )


def naive_nearest(values, downsample, wanted, shape):
    """The value under the centre of every pixel of an imaginary level; 255 outside."""
    out = np.full(shape, 255, np.uint8)
    for row in range(shape[0]):
        for column in range(shape[1]):
            y, x = (int((index + 0.5) * wanted / downsample) for index in (row, column))
            if y < values.shape[0] and x < values.shape[1]:
                out[row, column] = values[y, x]
    return out


def test_every_pair_of_classes_has_its_code():
    values = np.array([0, 1, 2, 254, 255], np.uint8)
    teacher, student = (part.ravel() for part in np.meshgrid(values, values, indexing="ij"))
    expected = [naive_code(int(t), int(s)) for t, s in zip(teacher, student, strict=True)]
    assert disagreement(teacher, student).tolist() == expected


@pytest.mark.parametrize(("teacher_downsample", "student_downsample"), [(1, 1), (2, 1), (1, 4), (2, 3.2)])
def test_masks_of_different_resolution_are_compared_where_they_lie(
    make_mask, teacher_downsample, student_downsample
):
    downsamples = (teacher_downsample, student_downsample)
    values = [random_mask((int(np.ceil(256 / f)),) * 2, seed) for seed, f in enumerate(downsamples)]
    masks = [
        make_mask(name, v, f) for name, v, f in zip(("teacher", "student"), values, downsamples, strict=True)
    ]
    lazy = disagreement_levels(*masks)
    finest = min(downsamples)
    assert lazy.downsample == (finest, finest)
    shape = lazy.levels[0].shape
    assert shape == (int(np.ceil(256 / finest)),) * 2
    sampled = [naive_nearest(v, f, finest, shape) for v, f in zip(values, downsamples, strict=True)]
    expected = np.vectorize(naive_code)(*sampled).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(lazy.levels[0]), expected)
    np.testing.assert_array_equal(lazy.levels[0][10:50, 7:9], expected[10:50, 7:9])
    assert [level.shape for level in lazy.levels][-1][0] <= 64


def test_confusion_and_dice_are_those_of_the_arrays(make_mask):
    teacher, student = random_mask((256, 256), 0), random_mask((256, 256), 1)
    masks = make_mask("teacher", teacher, 1), make_mask("student", student, 1)
    for region in (None, (10, 20, 100, 130)):
        area = (slice(None),) * 2 if region is None else (slice(10, 110), slice(20, 150))
        known = (teacher[area] != 255) & (student[area] != 255)
        pairs = list(zip(teacher[area][known].tolist(), student[area][known].tolist(), strict=True))
        expected = [[pairs.count((t, s)) for s in range(3)] for t in range(3)]
        table = confusion(*masks, region=region)
        assert table.counts.tolist() == expected
        t, s = teacher[area][known] == 2, student[area][known] == 2
        assert table.dice["tumour"] == pytest.approx(2 * (t & s).sum() / (t.sum() + s.sum()))
        assert table.agreement == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))


def test_a_class_nobody_saw_has_no_dice_and_an_empty_mask_no_agreement(make_mask):
    nothing = np.full((256, 256), 255, np.uint8)
    glass = np.zeros((256, 256), np.uint8)
    empty = make_mask("teacher", nothing, 1)
    background = make_mask("student", glass, 1)
    assert np.isnan(confusion(background, background).dice["tumour"])
    assert confusion(background, background).dice["background"] == 1
    summary = summarise(empty, background)
    assert summary.agreement is None
    assert summary.compared_px == 0
    json.dumps(summary.as_json(), allow_nan=False)
    whole = summarise(background, background)
    assert whole.compared_mm2 == pytest.approx(256 * 256 * 0.25 / 1e6)
    assert whole.teacher == {"label": "student", "name": "student"}


def test_a_class_without_a_name_is_refused(make_mask):
    mask = make_mask("teacher", np.full((256, 256), 7, np.uint8), 1)
    with pytest.raises(DataError, match="more classes than the 3 named"):
        confusion(mask, mask)


def test_masks_of_two_slides_are_not_compared(make_mask):
    glass = np.zeros((256, 256), np.uint8)
    one = make_mask("teacher", glass, 1)
    other = make_mask("student", glass, 1, slide="synthetic:256x256?seed=2&mpp=0.5")
    with pytest.raises(DataError, match="two different slides"):
        disagreement_levels(one, other)
    with pytest.raises(DataError, match="two different slides"):
        confusion(one, other)
