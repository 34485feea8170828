"""Sampling: the shares it promises, the same draw for the same seed, and an epoch that can be entered anywhere."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from napari_kdseg.jobs import JobCancelled
from napari_kdseg.training import DataConfig, TileDataset, discover
from napari_kdseg.training.tiles.dataset import batch_count, train_batches
from napari_kdseg.training.tiles.sampling import (
    MOST_COPIES,
    epoch_order,
    median_frequency_weights,
    tile_weights,
)

NAMES = [f"tile{index}" for index in range(100)]


def presence(*classes_of_tiles: set[int], classes: int = 4) -> np.ndarray:
    return np.array([[c in shown for c in range(classes)] for shown in classes_of_tiles])


def counts(weights, names=NAMES, epochs=1, seed=0) -> list[Counter]:
    return [
        Counter(index for index, _ in epoch_order(names, weights, seed=seed, stage="s", epoch=epoch))
        for epoch in range(epochs)
    ]


def test_all_shows_every_tile_once():
    order = epoch_order(NAMES, None, seed=0, stage="s", epoch=0)
    assert sorted(order) == [(index, 0) for index in range(100)]
    assert order != epoch_order(NAMES, None, seed=0, stage="s", epoch=1)


def test_balanced_draws_each_class_alike():
    """Where a tile shows one class beside background, the classes come equally often, and so do empty tiles."""
    shown = presence(*[{0}] * 40, *[{0, 1}] * 40, *[{0, 2}] * 15, *[{3}] * 5)
    weights = tile_weights(shown, "balanced")
    assert weights.mean() == pytest.approx(1)
    for first, last in ((0, 40), (40, 80), (80, 95), (95, 100)):
        assert weights[first:last].sum() == pytest.approx(25)


def test_balanced_weighs_a_tile_by_its_rarest_class():
    shown = presence({0, 1}, {0, 1}, {0, 1}, {0, 1, 2}, {0, 2})
    share = {1: 4 / 5, 2: 2 / 5}
    expected = np.array([1 / share[1]] * 3 + [1 / share[2]] * 2)
    np.testing.assert_allclose(tile_weights(shown, "balanced"), expected / expected.mean(), equal_nan=False)


def test_lesion_draws_foreground_at_least_half_of_the_time():
    shown = presence(*[{0}] * 80, *[{0, 1}] * 12, *[{2}] * 8)
    weights = tile_weights(shown, "lesion")
    assert weights[80:].sum() == pytest.approx(50)
    assert len(set(weights[80:])) == 1
    for counted in counts(weights, epochs=5):
        assert sum(n for index, n in counted.items() if index >= 80) == pytest.approx(50, abs=20)
    assert tile_weights(presence(*[{0}] * 3, *[{1}] * 7), "lesion") is None, "there is enough as it is"
    assert tile_weights(presence(*[{0}] * 3), "lesion") is None, "there is none"


@pytest.mark.parametrize("sampling", ["balanced", "lesion"])
def test_a_single_tile_is_not_shown_without_end(sampling):
    shown = presence(*[{0}] * 999, {1})
    weights = tile_weights(shown, sampling)
    assert weights[-1] == weights.max() <= MOST_COPIES * 1.001
    assert weights[-1] > MOST_COPIES * 0.999


def test_no_tile_comes_more_or_less_often_than_its_share_by_one():
    weights = np.random.default_rng(0).uniform(0.1, 4, 100)
    weights /= weights.mean()
    total: Counter = Counter()
    for counted in counts(weights, epochs=200):
        assert sum(counted.values()) == 100
        assert all(abs(counted[index] - weights[index]) < 1 for index in range(100))
        total += counted
    np.testing.assert_allclose(
        [total[index] / 200 for index in range(100)], weights, atol=0.15, equal_nan=False
    )


def test_copies_are_numbered_and_shuffled():
    weights = np.full(100, 0.5)
    weights[7] = 50.5
    order = epoch_order(NAMES, weights, seed=0, stage="s", epoch=0)
    copies = [copy for index, copy in order if index == 7]
    assert sorted(copies) == list(range(len(copies)))
    assert len(copies) in (50, 51)
    assert copies != sorted(copies)
    places = [place for place, (index, _) in enumerate(order) if index == 7]
    assert max(places) - min(places) > 80


def test_the_draw_depends_on_seed_stage_and_epoch_only():
    weights = np.linspace(0.1, 1.9, 100)

    def draw(**changes):
        return epoch_order(NAMES, weights, **({"seed": 0, "stage": "s", "epoch": 0} | changes))

    assert draw() == draw()
    for changes in ({"seed": 1}, {"stage": "t"}, {"epoch": 1}):
        assert draw() != draw(**changes)


@pytest.fixture
def dataset(make_tiles):
    """Nine of twelve tiles without a lesion, one all unannotated but for the lesion."""
    folder = make_tiles(14, classes=3)
    for index in range(2, 11):
        Image.new("L", (32, 32)).save(folder / "masks" / f"tile{index:03d}.png")
    mask = np.full((32, 32), 255, np.uint8)
    mask[3, 4] = 2
    Image.fromarray(mask).save(folder / "masks" / "tile000.png")
    found = discover(DataConfig(folder=folder, validation_fraction=0.15))
    return TileDataset(found, found.train, 32)


def test_presence_says_what_each_mask_holds(dataset):
    shown = dataset.presence()
    for index, tile in enumerate(dataset.tiles):
        expected = set(np.unique(np.asarray(Image.open(tile.mask)))) - {255}
        assert set(np.flatnonzero(shown[index])) == expected
    assert dataset.pixels() is dataset.pixels(), "the masks are read once"


def test_reading_the_masks_can_be_cancelled(dataset):
    def check():
        raise JobCancelled

    with pytest.raises(JobCancelled):
        dataset.presence(check)
    assert dataset.presence().any()


@pytest.mark.parametrize("sampling", ["balanced", "lesion"])
def test_an_epoch_can_be_entered_anywhere(dataset, sampling):
    arguments = {"seed": 0, "stage": "s", "epoch": 2, "sampling": sampling}
    whole = list(train_batches(dataset, 3, **arguments))
    fresh = TileDataset(dataset.collection, dataset.tiles, 32)
    rest = list(train_batches(fresh, 3, **arguments, start=2))
    assert len(whole) == batch_count(len(dataset), 3)
    for (image, target), (same_image, same_target) in zip(whole[2:], rest, strict=True):
        assert torch.equal(image, same_image)
        assert torch.equal(target, same_target)


def test_copies_of_a_tile_are_augmented_differently(dataset):
    keep = [index for index, shown in enumerate(dataset.presence()) if shown[1:].any()][:1]
    empty = [index for index, shown in enumerate(dataset.presence()) if not shown[1:].any()]
    few = TileDataset(dataset.collection, [dataset.tiles[index] for index in keep + empty[:7]], 32)
    images = torch.cat(
        [image for image, _ in train_batches(few, 8, seed=0, stage="s", epoch=0, sampling="lesion")]
    )
    assert len({image.numpy().tobytes() for image in images}) == 8


def test_median_frequency_weights():
    """Counted by hand: frequencies 100 / 200, 60 / 100 and 40 / 100 of the pixels of the tiles that show the class."""
    pixels = np.array([[60, 0, 40], [40, 60, 0]])
    assert median_frequency_weights(pixels) == pytest.approx((1, 0.5 / 0.6, 0.5 / 0.4))
    with_ignored = np.array([[50, 0], [0, 25], [25, 0]])
    assert median_frequency_weights(with_ignored) == pytest.approx((1, 1))


def test_a_class_no_tile_shows_counts_as_it_is():
    assert median_frequency_weights(np.array([[8, 2, 0]]))[2] == 1
    assert median_frequency_weights(np.zeros((3, 2), int)) == (1, 1)
