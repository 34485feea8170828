"""Training folders: what is found, what is refused in plain words, and splits that divide no patient."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_kdseg.errors import DataError
from napari_kdseg.training import DataConfig, describe, discover


def rows(count: int, **columns):
    return [
        {"tile": f"tile{i:03d}", **{name: make(i) for name, make in columns.items()}} for i in range(count)
    ]


def save_mask(folder: Path, index: int, values: np.ndarray) -> None:
    Image.fromarray(values).save(folder / "masks" / f"tile{index:03d}.png")


def refused(config: DataConfig) -> str:
    with pytest.raises(DataError) as caught:
        discover(config)
    return str(caught.value)


# -- what is found -----------------------------------------------------------------------------------


def test_pairs_by_stem(make_tiles):
    found = discover(DataConfig(folder=make_tiles(20)))
    assert sum(found.counts.values()) == 20
    assert found.counts["val"] == 3
    assert found.counts["test"] == 0
    assert found.classes == ("background", "foreground")
    assert found.channels == 3
    assert "one by one" in found.messages[0]


def test_black_and_white_masks_mean_class_one(make_tiles):
    found = discover(DataConfig(folder=make_tiles(8, white=True)))
    assert found.white_is_one
    tile = found.train[0]
    assert found.target(tile, np.array([[0, 255]], np.uint8)).tolist() == [[0, 1]]


def test_white_is_ignored_where_there_are_other_values(make_tiles):
    folder = make_tiles(8, white=True)
    both = np.eye(32, dtype=np.uint8)
    both[0, 5:] = 255
    save_mask(folder, 3, both)
    found = discover(DataConfig(folder=folder))
    assert not found.white_is_one
    sentence = "The value 255 occurs in 8 masks and is taken as 'not annotated', 7 of them without any class."
    assert sentence in found.messages
    assert found.target(found.train[0], np.array([[0, 1, 255]], np.uint8)).tolist() == [[0, 1, 255]]


def test_one_bit_palette_and_jpeg_masks(make_tiles):
    folder = make_tiles(8)
    mask = np.zeros((32, 32), np.uint8)
    mask[8:20, 8:20] = 1
    Image.fromarray(mask.astype(bool)).save(folder / "masks" / "tile000.png")
    palette = Image.fromarray(mask, mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(folder / "masks" / "tile001.png")
    assert discover(DataConfig(folder=folder)).classes == ("background", "foreground")
    for path in sorted((folder / "masks").iterdir()):
        Image.fromarray(mask * 255).save(path.with_suffix(".jpg"), quality=60)
        path.unlink()
    assert discover(DataConfig(folder=folder)).white_is_one


def test_nested_folders_and_tiff(make_tiles):
    folder = make_tiles(6)
    for sub in ("images", "masks"):
        for case in ("a", "b"):
            (folder / sub / case).mkdir()
    for i, case in ((0, "a"), (1, "b")):  # the same stem in two subfolders
        for sub in ("images", "masks"):
            (folder / sub / f"tile{i:03d}.png").rename(folder / sub / case / "same.png")
    image = np.zeros((32, 32, 3), np.uint8)
    tifffile.imwrite(folder / "images" / "b" / "t.tiff", image, photometric="rgb")
    tifffile.imwrite(folder / "masks" / "b" / "t.tif", np.ones((32, 32), np.uint8))
    (folder / "images" / ".hidden.png").write_bytes(b"not a picture")
    found = discover(DataConfig(folder=folder))
    names = {tile.name for tile in (*found.train, *found.val)}
    assert {"a/same", "b/same", "b/t", "tile002"} <= names


def test_multichannel_tiff(tmp_path):
    for sub in ("images", "masks"):
        (tmp_path / sub).mkdir()
    for i in range(4):
        stack = np.full((5, 40, 36), i, np.uint8)
        tifffile.imwrite(
            tmp_path / "images" / f"{i}.tif", stack, photometric="minisblack", metadata={"axes": "CYX"}
        )
        Image.fromarray(np.eye(40, 36, dtype=np.uint8)).save(tmp_path / "masks" / f"{i}.png")
    assert discover(DataConfig(folder=tmp_path)).channels == 5


def test_labels_by_class_index(make_tiles):
    manifest = rows(12, class_index=lambda i: i % 3 + 1, **{"class": lambda i: "abc"[i % 3]})
    found = discover(DataConfig(folder=make_tiles(12, manifest=manifest), labels="class_index"))
    assert found.classes == ("background", "a", "b", "c")
    tile = next(tile for tile in found.train if tile.class_index == 3)
    assert found.target(tile, np.array([[0, 1, 255]], np.uint8)).tolist() == [[0, 3, 255]]


def test_names_and_scale_from_the_folder(make_tiles):
    folder = make_tiles(8, manifest=rows(8, mpp=lambda i: 0.5))
    (folder / "classes.txt").write_text("background\ngland\n\n")
    found = discover(DataConfig(folder=folder))
    assert found.classes == ("background", "gland")
    assert found.mpp == 0.5
    assert discover(DataConfig(folder=folder, mpp=1.0)).mpp == 1.0
    (folder / "classes.txt").write_text("gland\n")
    assert "classes.txt" in refused(DataConfig(folder=folder))


def test_limit_and_fingerprint(make_tiles):
    folder = make_tiles(20)
    all_of_them, some = discover(DataConfig(folder=folder)), discover(DataConfig(folder=folder, limit=4))
    assert some.counts == {"train": 4, "val": 3, "test": 0}
    assert set(some.train) <= set(all_of_them.train)
    assert some.fingerprint == discover(DataConfig(folder=folder, limit=4)).fingerprint
    assert some.fingerprint != all_of_them.fingerprint


def test_description_for_people(make_tiles):
    text = describe(DataConfig(folder=make_tiles(20)))
    assert "17 for training" in text
    assert "background, foreground" in text


# -- what is refused ---------------------------------------------------------------------------------


def test_no_folder(tmp_path):
    assert "does not exist" in refused(DataConfig(folder=tmp_path / "none"))
    assert "no folder 'images'" in refused(DataConfig(folder=tmp_path))


def test_empty_folder(make_tiles):
    folder = make_tiles(0)
    (folder / "images" / "notes.txt").write_text("x")
    assert "holds no PNG" in refused(DataConfig(folder=folder))


def test_images_without_masks(make_tiles):
    folder = make_tiles(12)
    for i in range(6):
        (folder / "masks" / f"tile{i:03d}.png").unlink()
    sentence = refused(DataConfig(folder=folder))
    assert "6 images have no mask" in sentence
    assert "tile000, tile001, tile002, tile003 and 2 more" in sentence


def test_masks_without_images_are_left_out(make_tiles):
    folder = make_tiles(8)
    (folder / "images" / "tile000.png").unlink()
    assert any("1 masks have no image" in message for message in discover(DataConfig(folder=folder)).messages)


def test_mask_of_another_size(make_tiles):
    folder = make_tiles(8)
    save_mask(folder, 2, np.zeros((16, 20), np.uint8))
    assert "tile002 (image 32 x 32, mask 20 x 16)" in refused(DataConfig(folder=folder))


def test_unreadable_files(make_tiles):
    folder = make_tiles(8)
    (folder / "images" / "tile001.png").write_bytes(b"nothing like a PNG")
    assert "1 file cannot be read: tile001.png" in refused(DataConfig(folder=folder))
    folder = make_tiles(8, name="second")
    path = folder / "masks" / "tile004.png"
    path.write_bytes(path.read_bytes()[:60])
    assert "tile004.png" in refused(DataConfig(folder=folder))


def test_mask_values_beyond_the_classes(make_tiles):
    folder = make_tiles(8)
    save_mask(folder, 5, np.full((32, 32), 4, np.uint8))
    sentence = refused(DataConfig(folder=folder, classes=("background", "gland")))
    assert "1 mask has values that are none of the 2 classes 0 to 1: tile005 (4)" in sentence


def test_masks_that_are_no_class_masks(make_tiles):
    folder = make_tiles(8)
    save_mask(folder, 0, np.arange(1024).reshape(32, 32).clip(0, 200).astype(np.uint8))
    assert "single objects" in refused(DataConfig(folder=folder))
    folder = make_tiles(8, name="colour")
    save_mask(folder, 0, np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8))
    assert "colour picture" in refused(DataConfig(folder=folder))
    folder = make_tiles(8, name="deep")
    save_mask(folder, 0, np.full((32, 32), 700, np.uint16))
    assert "values up to 700" in refused(DataConfig(folder=folder))


def test_nothing_but_background(make_tiles):
    folder = make_tiles(4)
    for i in range(4):
        save_mask(folder, i, np.zeros((32, 32), np.uint8))
    assert "nothing but background" in refused(DataConfig(folder=folder))


def test_the_same_tile_twice(make_tiles):
    folder = make_tiles(4)
    Image.new("RGB", (32, 32)).save(folder / "images" / "tile000.jpg")
    assert "more than once" in refused(DataConfig(folder=folder))


def test_images_of_different_kinds(make_tiles):
    folder = make_tiles(4)
    (folder / "images" / "tile000.png").unlink()
    stack = np.zeros((5, 32, 32), np.uint8)
    tifffile.imwrite(
        folder / "images" / "tile000.tif", stack, photometric="minisblack", metadata={"axes": "CYX"}
    )
    assert "3 with 3, 1 with 5" in refused(DataConfig(folder=folder))


def test_manifest_of_missing_tiles(make_tiles):
    folder = make_tiles(8, manifest=rows(11, patient=lambda i: i))
    assert "3 tiles that are not in 'images': tile008, tile009, tile010" in refused(DataConfig(folder=folder))


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("split", "tset", "split other than train, val or test: tile003 ('tset')"),
        ("class_index", "three", "no number from 0 to 254: tile003 ('three')"),
        ("tile", "tile002", "more than once: tile002"),
        ("split", "", "1 tile has no split"),
        ("class_index", "", "1 tile has no class_index"),
        ("class", "other", "two names"),
    ],
)
def test_manifests_that_contradict_themselves(make_tiles, column, value, words):
    split = ["train", "train", "train", "train", "train", "val", "test", "test"]
    manifest = rows(8, split=lambda i: split[i], class_index=lambda i: 1, **{"class": lambda i: "gland"})
    manifest[3][column] = value
    assert words in refused(DataConfig(folder=make_tiles(8, manifest=manifest), labels="class_index"))


def test_manifests_that_are_none(make_tiles, tmp_path):
    folder = make_tiles(4, manifest=[{"name": "tile000"}])
    assert "no column 'tile' (it has: name)" in refused(DataConfig(folder=folder))
    assert "does not exist" in refused(DataConfig(folder=folder, manifest=tmp_path / "other.csv"))
    (folder / "manifest.csv").write_text("tile\n")
    assert "names no tiles" in refused(DataConfig(folder=folder))
    (folder / "manifest.csv").unlink()
    assert "need a manifest.csv" in refused(DataConfig(folder=folder, labels="class_index"))


def test_classes_that_are_not_named(make_tiles):
    manifest = rows(8, class_index=lambda i: i)
    config = DataConfig(
        folder=make_tiles(8, manifest=manifest), labels="class_index", classes=("background", "a")
    )
    assert "class_index 7, but only 2 classes" in refused(config)


def test_too_few_to_divide(make_tiles):
    folder = make_tiles(6, manifest=rows(6, patient=lambda i: "one"))
    assert "1 patients cannot be divided" in refused(DataConfig(folder=folder))
    folder = make_tiles(4, manifest=rows(4, split=lambda i: "val" if i else "train"), name="second")
    assert "only one tile to train on" in refused(DataConfig(folder=folder))
    folder = make_tiles(4, manifest=rows(4, split=lambda i: "test"), name="third")
    assert "no tile of the split 'train'" in refused(DataConfig(folder=folder))


# -- splits ------------------------------------------------------------------------------------------


def test_a_patient_in_two_splits_is_refused(make_tiles):
    manifest = rows(8, split=lambda i: "train" if i < 6 else "test", patient=lambda i: f"p{i % 4}")
    sentence = refused(DataConfig(folder=make_tiles(8, manifest=manifest)))
    assert "2 patients are in more than one split: p2 (test and train), p3 (test and train)" in sentence


@pytest.mark.parametrize("seed", range(8))
def test_no_patient_is_ever_divided(make_tiles, seed):
    random = np.random.default_rng(seed)
    patient = random.integers(0, random.integers(4, 12), 40)
    folder = make_tiles(40, size=16, manifest=rows(40, patient=lambda i: f"p{patient[i]}"))
    config = DataConfig(folder=folder, validation_fraction=0.2, test_fraction=0.2, seed=seed)
    found = discover(config)
    splits = defaultdict(set)
    for split in ("train", "val", "test"):
        part = getattr(found, split)
        assert part
        for tile in part:
            splits[tile.patient].add(split)
    assert all(len(where) == 1 for where in splits.values())
    assert sum(found.counts.values()) == 40
    assert discover(config) == found, "the same seed divides the same way"


def test_another_seed_divides_differently(make_tiles):
    folder = make_tiles(30, size=16)
    assert discover(DataConfig(folder=folder)).val != discover(DataConfig(folder=folder, seed=1)).val


def test_validation_is_taken_from_training_where_the_manifest_has_none(make_tiles):
    manifest = rows(
        20, split=lambda i: "test" if i < 5 else "train", patient=lambda i: i // 2 if i > 4 else 100 + i
    )
    found = discover(DataConfig(folder=make_tiles(20, manifest=manifest), test_fraction=0.3))
    assert found.counts["test"] == 5
    assert found.counts["val"] > 0
    assert not {tile.patient for tile in found.val} & {tile.patient for tile in found.train}
    assert any("names no validation tiles" in message for message in found.messages)


def test_real_tiles(real_data):
    folder = real_data / "ebhi-seg"
    found = discover(DataConfig(folder=folder))
    assert found.counts == {"train": 1424, "val": 216, "test": 344}
    assert sum(found.counts.values()) == 1984
    patients = [{tile.patient for tile in getattr(found, split)} for split in ("train", "val", "test")]
    assert not patients[0] & patients[1]
    assert not patients[0] & patients[2]
    assert not patients[1] & patients[2]
    assert found.messages == ()
    seven = discover(DataConfig(folder=folder, labels="class_index"))
    assert len(seven.classes) == 7
    assert seven.classes[5] == "adenocarcinoma"
