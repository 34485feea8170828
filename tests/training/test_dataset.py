"""Tiles as arrays: sizes, order and augmentation that depend on nothing but the seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from napari_kdseg.errors import DataError
from napari_kdseg.training import DataConfig, TileDataset, discover
from napari_kdseg.training.tiles.dataset import all_batches, batch_count, train_batches


@pytest.fixture
def dataset(make_tiles):
    found = discover(DataConfig(folder=make_tiles(13, size=48)))
    return TileDataset(found, found.train, 32)


def test_resized_and_cropped(make_tiles, tmp_path):
    folder = make_tiles(3)
    for sub, mode in (("images", "RGB"), ("masks", "L")):
        Image.new(mode, (100, 60), 1 if mode == "L" else (10, 20, 30)).save(folder / sub / "tile000.png")
    found = discover(DataConfig(folder=folder))
    for split in (found.train, found.val):
        for image, mask in (TileDataset(found, split, 40)[i] for i in range(len(split))):
            assert image.shape == (40, 40, 3)
            assert mask.shape == (40, 40)
            assert image.dtype == mask.dtype == np.uint8
            assert set(np.unique(mask)) <= {0, 1}


def test_memory_is_bounded(dataset):
    cached = TileDataset(dataset.collection, dataset.tiles, 32, cache_bytes=3 * 48 * 48 * 4)
    for i in range(len(cached)):
        np.testing.assert_array_equal(cached[i][0], dataset[i][0])
    assert 1 <= len(cached._cache) < len(cached)


def test_a_damaged_image_is_named(make_tiles):
    folder = make_tiles(6, size=64)
    found = discover(DataConfig(folder=folder))
    path = found.train[1].image
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=path.name):
        list(train_batches(TileDataset(found, found.train, 32), 2, seed=0, stage="s", epoch=0))


def test_order_and_augmentation_depend_on_the_seed_only(dataset):
    def epoch(number: int, stage: str = "student", seed: int = 3):
        return list(train_batches(dataset, 4, seed=seed, stage=stage, epoch=number))

    first, again = epoch(0), epoch(0)
    assert len(first) == batch_count(len(dataset), 4) == 2
    for (image, target), (same_image, same_target) in zip(first, again, strict=True):
        assert torch.equal(image, same_image)
        assert torch.equal(target, same_target)
    for other in (epoch(1), epoch(0, "teacher"), epoch(0, seed=4)):
        assert not all(torch.equal(a[0], b[0]) for a, b in zip(first, other, strict=True))


def test_an_epoch_can_be_entered_anywhere(dataset):
    arguments = {"seed": 0, "stage": "s", "epoch": 5}
    whole = list(train_batches(dataset, 3, **arguments))
    rest = list(train_batches(dataset, 3, **arguments, start=2))
    assert len(rest) == len(whole) - 2
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole[2:], rest, strict=True))
    assert list(train_batches(dataset, 3, **arguments, start=len(whole))) == []


def test_validation_sees_every_tile_once(dataset):
    batches = list(all_batches(dataset, 4))
    assert sum(len(image) for image, _ in batches) == len(dataset)
    assert torch.equal(batches[0][0][1], torch.from_numpy(dataset[1][0].copy()))


def test_few_tiles_make_one_batch(make_tiles):
    found = discover(DataConfig(folder=make_tiles(4)))
    batches = list(train_batches(TileDataset(found, found.train, 32), 16, seed=0, stage="s", epoch=0))
    assert len(batches) == batch_count(len(found.train), 16) == 1
    assert len(batches[0][0]) == len(found.train)


def test_sampled_masks_show_two_classes(dataset):
    masks = dataset.masks(5, torch.Generator().manual_seed(1))
    assert masks.shape == (5, 32, 32)
    assert masks.dtype == torch.int64
    assert all(len(mask.unique()) == 2 for mask in masks)
    assert torch.equal(masks, dataset.masks(5, torch.Generator().manual_seed(1)))


def test_scales_are_those_of_the_input(make_tiles):
    manifest = [{"tile": f"tile{i:03d}", "split": "train", "mpp": 0.5 if i else 1.0} for i in range(3)]
    manifest.append({"tile": "tile003", "split": "val", "mpp": ""})
    folder = make_tiles(4, size=64, manifest=manifest)
    found = discover(DataConfig(folder=folder))
    assert TileDataset(found, found.train, 32).scales() == [2.0, 1.0, 1.0]
    assert TileDataset(found, found.val, 32).scales() is None, "nobody knows the scale of the last tile"
    given = discover(DataConfig(folder=folder, mpp=0.25))
    assert TileDataset(given, given.val, 32).scales() == [0.5]
    assert TileDataset(given, (), 32).scales() is None
