from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from napari_kdseg.comparison import (
    confusion,
    countable_level,
    disagreement,
    disagreement_levels,
    mended_by,
    summarise,
)
from napari_kdseg.distillation.correction.teacher_team import Correction
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


@pytest.mark.parametrize("seed", range(3))
def test_shares_of_disagreement_are_those_of_pixels_looked_at_one_by_one(make_mask, seed):
    teacher, student = random_mask((256, 256), seed), random_mask((256, 256), seed + 100)
    masks = make_mask("teacher", teacher, 1), make_mask("student", student, 1)
    codes = [naive_code(int(t), int(s)) for t, s in zip(teacher.ravel(), student.ravel(), strict=True)]
    compared = [code for code in codes if code != 255]
    table = confusion(*masks)
    assert table.pixels == {code: compared.count(code) for code in range(4)}
    assert table.shares == {code: compared.count(code) / len(compared) for code in range(4)}
    assert sum(table.pixels.values()) == len(compared)
    assert table.shares[0] == pytest.approx(table.agreement)
    summary = summarise(*masks)
    named = dict(zip(("only_teacher", "only_student", "different_class"), (1, 2, 3), strict=True))
    assert summary.disagreement == {
        name: compared.count(code) / len(compared) for name, code in named.items()
    }


def test_the_mean_dice_leaves_out_background_and_what_nobody_saw(make_mask):
    glass = np.zeros((256, 256), np.uint8)
    half = glass.copy()
    half[:128] = 1
    quarter = glass.copy()
    quarter[:64] = 1
    table = confusion(make_mask("teacher", half, 1), make_mask("student", quarter, 1))
    assert table.mean_dice == pytest.approx(2 * 64 / (128 + 64))  # of benign alone: no tumour is there
    same = make_mask("glass", glass, 1)
    assert np.isnan(confusion(same, same).mean_dice)
    assert summarise(same, same).mean_dice is None
    assert confusion(same, same).shares == {0: 1.0, 1: 0.0, 2: 0.0, 3: 0.0}


def test_where_nothing_was_computed_nothing_differs(make_mask):
    nothing = make_mask("teacher", np.full((256, 256), 255, np.uint8), 1)
    assert set(confusion(nothing, nothing).shares.values()) == {0.0}


def test_the_level_to_count_is_the_finest_that_is_small_enough(make_mask):
    mask = make_mask("teacher", np.zeros((256, 256), np.uint8), 1)
    assert [level.shape[0] for level in mask.levels[:3]] == [256, 128, 64]
    assert countable_level(mask) == 0
    assert countable_level(mask, 256 * 256 - 1) == 1
    assert countable_level(mask, 64 * 64) == 2
    assert countable_level(mask, 1) == len(mask.levels) - 1


def test_what_mended_the_pixels_is_what_their_codes_say():
    random = np.random.default_rng(0)
    codes = torch.from_numpy(random.choice([0, 1, 2, 3, 4, 5, 255], (2, 37, 41)).astype(np.uint8))
    target = torch.where(codes == 255, 255, torch.from_numpy(random.integers(0, 3, codes.shape)))

    def probabilities(right: torch.Tensor) -> torch.Tensor:
        """Certain, and of the true class where ``right``, else of the next one."""
        classes = torch.where(target == 255, 0, torch.where(right, target, (target + 1) % 3))
        return torch.nn.functional.one_hot(classes, 3).permute(0, 3, 1, 2).float()

    steps = [probabilities(codes <= last) for last in (0, 1, 2, 4)]
    counts = Correction(*steps, codes, target, steps[0]).counts()
    expected = {code: sum(int(item) == code for item in codes.ravel().tolist()) for code in range(6)}
    assert mended_by(asdict(counts)) == expected


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
