"""Scores against a naive count, and the rule for classes that are not there."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from napari_kdseg.training import SegmentationScore
from napari_kdseg.training.metrics import confusion_matrix


def naive(prediction: np.ndarray, target: np.ndarray, c: int) -> tuple[float, float]:
    both = either = p_count = t_count = 0
    for p, t in zip(prediction.ravel(), target.ravel(), strict=True):
        if t == 255:
            continue
        both += p == c and t == c
        either += p == c or t == c
        p_count += p == c
        t_count += t == c
    if either == 0:
        return math.nan, math.nan
    return 2 * both / (p_count + t_count), both / either


@pytest.mark.parametrize("classes", [2, 4])
def test_against_a_naive_count(classes):
    random = np.random.default_rng(classes)
    prediction = random.integers(0, classes, (6, 7, 9))
    target = random.integers(0, classes, (6, 7, 9))
    target[random.random(target.shape) < 0.2] = 255
    score = SegmentationScore([f"c{i}" for i in range(classes)])
    for part in (slice(0, 4), slice(4, 6)):
        score.add(torch.from_numpy(prediction[part]), torch.from_numpy(target[part]))
    summary = score.summary()
    dice, iou = zip(*(naive(prediction, target, c) for c in range(1, classes)), strict=True)
    assert summary["dice"] == pytest.approx(np.mean(dice))
    assert summary["iou"] == pytest.approx(np.mean(iou))
    for c in range(1, classes):
        assert summary[f"dice/c{c}"] == pytest.approx(dice[c - 1])
        assert summary[f"iou/c{c}"] == pytest.approx(iou[c - 1])
    labelled = target != 255
    assert summary["accuracy"] == pytest.approx((prediction == target)[labelled].mean())
    tiles = [
        np.nanmean([naive(p, t, c)[0] for c in range(1, classes)])
        for p, t in zip(prediction, target, strict=True)
    ]
    assert summary["tile_dice"] == pytest.approx(np.mean(tiles))


def test_an_absent_class_has_no_score_and_spoils_no_mean():
    score = SegmentationScore(["background", "here", "nowhere"])
    tile = torch.tensor([[[0, 1], [1, 1]]])
    score.add(tile, tile)
    summary = score.summary()
    assert summary["dice"] == summary["iou"] == summary["tile_dice"] == 1.0
    assert math.isnan(summary["dice/nowhere"])


def test_a_class_only_predicted_or_only_annotated_scores_zero():
    score = SegmentationScore(["background", "gland"])
    score.add(torch.ones(1, 2, 2, dtype=torch.int64), torch.zeros(1, 2, 2, dtype=torch.int64))
    assert score.summary()["dice"] == 0.0


def test_nothing_at_all():
    score = SegmentationScore(["background", "gland"])
    assert all(math.isnan(value) for value in score.summary().values())
    score.add(torch.zeros(1, 2, 2, dtype=torch.int64), torch.full((1, 2, 2), 255))
    assert math.isnan(score.summary()["dice"])
    score.add(torch.zeros(1, 2, 2, dtype=torch.int64), torch.zeros(1, 2, 2, dtype=torch.int64))
    assert score.summary()["accuracy"] == 1.0
    assert math.isnan(score.summary()["tile_dice"]), (
        "an empty tile rightly left empty is in no mean of foreground"
    )


def test_confusion_counts_rows_by_annotation():
    target, prediction = torch.tensor([0, 0, 1, 1, 255]), torch.tensor([0, 1, 1, 1, 0])
    assert confusion_matrix(prediction, target, 2).tolist() == [[1, 1], [0, 2]]
