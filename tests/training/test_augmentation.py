"""Augmentation: each change against a direct computation, image and mask together, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import hed2rgb, rgb2hed

from napari_kdseg.training import AugmentationConfig, DataConfig, TileDataset, discover
from napari_kdseg.training.tiles.augmentation import augmented, change_light, change_stain
from napari_kdseg.training.tiles.dataset import train_batches

NOTHING = AugmentationConfig(
    flips=False,
    turns=False,
    stain_probability=0,
    light_probability=0,
    blur_probability=0,
    scale_probability=0,
)


def only(**changes) -> AugmentationConfig:
    return NOTHING.model_copy(update=changes)


@pytest.fixture
def tile():
    random = np.random.default_rng(0)
    return random.integers(0, 256, (24, 24, 3)).astype(np.uint8), random.integers(0, 3, (24, 24)).astype(
        np.uint8
    )


def variants(tile, settings, count=40, side=24):
    return [augmented(*tile, side, np.random.default_rng(seed), settings) for seed in range(count)]


def test_nothing_changes_nothing(tile):
    for image, mask in variants(tile, NOTHING, 5):
        np.testing.assert_array_equal(image, tile[0])
        np.testing.assert_array_equal(mask, tile[1])


@pytest.mark.parametrize(
    ("settings", "ways"),
    [(only(flips=True), 2), (only(turns=True), 4), (only(flips=True, turns=True), 8)],
)
def test_image_and_mask_are_turned_together(settings, ways):
    mask = (np.random.default_rng(0).random((24, 24)) > 0.5).astype(np.uint8)
    image = np.repeat((mask * 200)[..., None], 4, axis=2)
    turned = set()
    for moved, moved_mask in variants((image, mask), settings, 60):
        np.testing.assert_array_equal(moved[..., 0], moved_mask * 200)
        turned.add(moved_mask.tobytes())
    assert len(turned) == ways


def test_a_crop_lies_anywhere_in_a_longer_tile():
    image = np.broadcast_to(np.arange(40, dtype=np.uint8)[None, :, None], (24, 40, 3))
    lefts = {int(moved[0, 0, 0]) for moved, _ in variants((image, image[..., 0]), NOTHING, 200)}
    assert lefts == set(range(17))


def test_scale_enlarges_and_reduces_both(tile):
    """A disc keeps its place in the mask and in the image; its area grows and shrinks by the square of the factor."""
    rows, columns = np.mgrid[:64, :64]
    mask = ((rows - 31.5) ** 2 + (columns - 31.5) ** 2 < 15**2).astype(np.uint8)
    image = np.repeat((mask * 200)[..., None], 3, axis=2)
    areas = []
    for moved, moved_mask in variants((image, mask), only(scale_probability=1.0, scale=0.5), 60, side=64):
        assert moved.shape == (64, 64, 3)
        assert moved_mask.shape == (64, 64)
        assert set(np.unique(moved_mask)) == {0, 1}
        agree = (moved[..., 0] > 100) == (moved_mask == 1)
        assert agree.mean() > 0.97
        areas.append(moved_mask.sum() / mask.sum())
    assert min(areas) == pytest.approx(1.5**-2, rel=0.15)
    assert 1.5 < max(areas) <= 1.5**2 * 1.1
    assert np.mean(np.array(areas) > 1) == pytest.approx(0.5, abs=0.2)


def test_probability_is_the_share_of_tiles_changed(tile):
    for name in ("stain_probability", "light_probability", "blur_probability", "scale_probability"):
        changed = [
            not np.array_equal(image, tile[0])
            for image, _ in variants(tile, only(scale=2.0, **{name: 0.4}), 300)
        ]
        assert np.mean(changed) == pytest.approx(0.4, abs=0.1), name


def test_a_change_switched_off_leaves_the_others_as_they_were(tile):
    turned = variants(tile, only(flips=True, turns=True), 20)
    stained = variants(tile, only(flips=True, turns=True, stain_probability=1.0), 20)
    for (_, mask), (image, other) in zip(turned, stained, strict=True):
        np.testing.assert_array_equal(mask, other)
        assert image.shape == tile[0].shape


def test_labels_not_annotated_stay_so(tile):
    mask = np.full((24, 24), 255, np.uint8)
    for _, moved in variants((tile[0], mask), AugmentationConfig(scale_probability=1.0, scale=1.0), 20):
        assert set(np.unique(moved)) == {255}


def test_one_channel_and_many_are_not_stained():
    for channels in (1, 5):
        image = np.random.default_rng(1).integers(0, 256, (24, 24, channels)).astype(np.uint8)
        moved, _ = augmented(image, image[..., 0], 24, np.random.default_rng(0), only(stain_probability=1.0))
        np.testing.assert_array_equal(moved, image)


def test_light_against_a_direct_computation(tile):
    image = tile[0]
    expected = (image - image.mean()) * 1.2 + image.mean() + 0.1 * 255
    np.testing.assert_array_equal(
        change_light(image, 0.1, 1.2), np.clip(np.rint(expected), 0, 255).astype(np.uint8)
    )
    np.testing.assert_array_equal(change_light(image, 0.0, 1.0), image)


def test_blur_takes_away_contrast_and_keeps_the_mean(tile):
    for image, mask in variants(tile, only(blur_probability=1.0, blur=2.0), 5):
        assert image.std() < tile[0].std()
        assert image.mean() == pytest.approx(tile[0].mean(), abs=2)
        np.testing.assert_array_equal(mask, tile[1])


def test_stain_unchanged_and_changed():
    image = np.arange(256 * 3, dtype=np.uint32).reshape(16, 16, 3).astype(np.uint8)
    same = change_stain(image, np.ones(3), np.zeros(3))
    assert np.abs(same.astype(int) - image).max() <= 1
    darker = change_stain(image, np.full(3, 1.2), np.zeros(3))
    assert darker.mean() < image.mean()


def test_stain_change_equals_scikit_image():
    stains = np.random.default_rng(0).uniform(
        0.01, 0.1, (8, 8, 3)
    )  # none negative, which rgb2hed would cut off
    image = (hed2rgb(stains) * 255).round().astype(np.uint8)
    factor = np.array([1.05, 0.96, 1.0])
    expected = hed2rgb(rgb2hed(image) * factor) * 255
    assert np.abs(change_stain(image, factor, np.zeros(3)).astype(float) - expected).max() < 3


def test_the_same_seed_gives_the_same_tile(make_tiles):
    found = discover(DataConfig(folder=make_tiles(8)))
    dataset = TileDataset(found, found.train, 32)
    settings = AugmentationConfig(blur_probability=0.5, light_probability=0.5, scale_probability=0.5)

    def epoch(number, augment=settings, start=0):
        batches = train_batches(dataset, 2, seed=0, stage="s", epoch=number, augment=augment, start=start)
        return [image.numpy() for image, _ in batches]

    whole = epoch(1)
    np.testing.assert_array_equal(whole, epoch(1))
    np.testing.assert_array_equal(whole[2:], epoch(1, start=2))
    assert not np.array_equal(whole, epoch(2))
    assert not np.array_equal(whole, epoch(1, augment=AugmentationConfig()))
    np.testing.assert_array_equal(epoch(1, augment=True), epoch(1, augment=AugmentationConfig()))
    np.testing.assert_array_equal(epoch(1, augment=False), epoch(1, augment=NOTHING))
