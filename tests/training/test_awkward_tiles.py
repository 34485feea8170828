"""Tiles as they come: turned by a tag, deep, with palettes, two kinds of white, names in NFC and NFD."""

from __future__ import annotations

import io
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from napari_kdseg.errors import DataError
from napari_kdseg.training import DataConfig, TileDataset, describe, discover
from napari_kdseg.training.tiles.pictures import PictureError, picture_header, read_image, read_mask

ORIENTATION = 274


def refused(folder: Path, **settings) -> str:
    with pytest.raises(DataError) as caught:
        discover(DataConfig(folder=folder, **settings))
    return str(caught.value)


@pytest.fixture
def example():
    """Return the folder of an example of awkward tiles."""
    root = (
        Path(os.environ.get("KDSEG_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
        / "awkward"
    )
    if not root.is_dir():
        pytest.skip("the awkward files are not on this computer (KDSEG_DATA)")
    return lambda name: root / name / "tiles"


# -- orientation tags ------------------------------------------------------------------------------------------------


def saved(path: Path, pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Save pixels with an orientation tag; return what Pillow shows of them."""
    if path.suffix == ".tif":
        tags = [(ORIENTATION, 3, 1, orientation, True)]
        tifffile.imwrite(
            path, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack", extratags=tags
        )
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        with (
            io.BytesIO() as copy
        ):  # Pillow reads this tag of TIFF itself or not, by its version: it is asked by PNG
            Image.fromarray(pixels).save(copy, "PNG", exif=exif)
            return np.asarray(ImageOps.exif_transpose(Image.open(copy)))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(path, exif=exif, **({"quality": 95} if path.suffix == ".jpg" else {}))
    return np.asarray(ImageOps.exif_transpose(Image.open(path)))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("orientation", [*range(1, 9), 0, 9])
def test_pictures_are_read_as_viewers_show_them(suffix, orientation, tmp_path, blob):
    image, _ = blob(3)
    image = image[:20]
    shown = saved(tmp_path / f"image{suffix}", image, orientation)
    header = picture_header(tmp_path / f"image{suffix}")
    assert header.size == shown.shape[:2]
    np.testing.assert_array_equal(read_image(tmp_path / f"image{suffix}"), shown)
    if suffix != ".jpg":
        mask = np.arange(20 * 32, dtype=np.uint8).reshape(20, 32) % 200
        shown = saved(tmp_path / f"mask{suffix}", mask, orientation)
        np.testing.assert_array_equal(read_mask(tmp_path / f"mask{suffix}"), shown)


def test_exif_behind_the_pixels_of_a_png_counts(tmp_path, blob):
    image, _ = blob(3)
    saved(tmp_path / "before.png", image[:20], 6)
    content = (tmp_path / "before.png").read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    last = content.index(b"IEND") - 4
    (tmp_path / "behind.png").write_bytes(
        content[:start] + content[end:last] + content[start:end] + content[last:]
    )
    shown = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "behind.png")))
    assert shown.shape == (32, 20, 3)
    assert picture_header(tmp_path / "behind.png").size == (32, 20)
    np.testing.assert_array_equal(read_image(tmp_path / "behind.png"), shown)


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("on", ["image", "mask", "both"])
def test_image_and_mask_fit_whichever_of_them_has_the_tag(on, orientation, make_tiles, blob):
    """Each is stored so that its tag turns it back to what the others are."""
    folder = make_tiles(4)
    back = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    image, mask = blob(0)
    exif = Image.Exif()
    exif[ORIENTATION] = back
    for sub, pixels in (("images", image), ("masks", mask)):
        if on in (sub[:-1], "both"):
            stored = Image.fromarray(pixels)
            stored.getexif()[ORIENTATION] = orientation
            stored = ImageOps.exif_transpose(stored)
            stored.save(folder / sub / "tile000.png", exif=exif)
    found = discover(DataConfig(folder=folder, input_size=32))
    tile = next(tile for tile in (*found.train, *found.val) if tile.name == "tile000")
    read = TileDataset(found, [tile], 32)[0]
    np.testing.assert_array_equal(read[0], image)
    np.testing.assert_array_equal(read[1], mask)
    assert found.turned == (2 if on == "both" else 1)
    assert any(
        f"tile000.png: {back}" in message and "orientation tag" in message for message in found.messages
    )


def test_turned_pictures_are_counted_and_make_another_data_set(make_tiles):
    folder = make_tiles(4)
    before = discover(DataConfig(folder=folder))
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    for name in ("tile001", "tile002"):
        Image.open(folder / "images" / f"{name}.png").save(folder / "images" / f"{name}.png", exif=exif)
    after = discover(DataConfig(folder=folder))
    assert any(
        message.startswith("2 pictures (images/tile001.png: 3, images/tile002.png: 3)")
        for message in after.messages
    )
    assert before.fingerprint != after.fingerprint, "a run is not resumed on pictures that are read otherwise"
    assert not any("orientation" in message for message in before.messages)


def test_a_mask_drawn_on_the_pixels_as_stored_is_refused_by_its_tag(make_tiles, blob):
    folder = make_tiles(4)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(blob(0)[0][:20]).save(folder / "images" / "tile000.png", exif=exif)
    Image.fromarray(blob(0)[1][:20]).save(folder / "masks" / "tile000.png")
    assert "tile000 (image 20 x 32 as its orientation 6 turns it, mask 32 x 20)" in refused(folder)


def test_the_example_with_exif(example):
    folder = example("tiles_exif_rotation")
    for path in sorted((folder / "images").iterdir()):
        np.testing.assert_array_equal(read_image(path), ImageOps.exif_transpose(Image.open(path)))
    assert "6 pictures (images/t0.jpg: 3" in describe(DataConfig(folder=folder))


# -- depth and colours -----------------------------------------------------------------------------------------------


def png_of_16_bits(path: Path, pixels: np.ndarray) -> None:
    """A PNG in colour with 16 bits a channel, which Pillow cannot write."""
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["rgb.tif", "grey.tif", "grey.png", "rgb.png", "float.tif"])
def test_deep_images_are_counted_when_the_folder_is_looked_at(kind, make_tiles, blob):
    folder = make_tiles(6)
    for name in ("tile001", "tile004"):
        (folder / "images" / f"{name}.png").unlink()
        pixels = blob(1)[0].astype(np.uint16) * 257
        path = folder / "images" / f"{name}{kind[-4:]}"
        if kind == "rgb.tif":
            tifffile.imwrite(path, pixels, photometric="rgb")
        elif kind == "rgb.png":
            png_of_16_bits(path, pixels)
            assert np.asarray(Image.open(path)).dtype == np.uint8, "Pillow keeps half of it without a word"
        elif kind == "float.tif":
            tifffile.imwrite(path, pixels[..., 0].astype(np.float32), photometric="minisblack")
        elif kind == "grey.tif":
            tifffile.imwrite(path, pixels[..., 0], photometric="minisblack")
        else:
            Image.fromarray(pixels[..., 0]).save(path)
    sentence = refused(folder)
    dtype = "float32" if kind == "float.tif" else "uint16"
    assert (
        f"2 images cannot be trained on: tile001{kind[-4:]} (has {dtype} values; convert it to 8 bits)"
        in sentence
    )


def test_the_example_of_16_bits(example):
    folder = example("tiles_16_bit_found_late")
    count = len(list((folder / "images").iterdir()))
    assert refused(folder).startswith(f"{count} images cannot be trained on: t0.tif (has uint16 values")


def test_masks_of_16_bits_count_as_long_as_they_hold_class_numbers(make_tiles, blob):
    folder = make_tiles(4)
    mask = blob(0)[1].astype(np.uint16)
    Image.fromarray(mask).save(folder / "masks" / "tile000.png")
    (folder / "masks" / "tile001.png").unlink()
    tifffile.imwrite(folder / "masks" / "tile001.tif", mask, photometric="minisblack")
    assert discover(DataConfig(folder=folder)).classes == ("background", "foreground")
    np.testing.assert_array_equal(read_mask(folder / "masks" / "tile000.png"), mask)


@pytest.mark.parametrize("kind", ["separated", "palette", "miniswhite"])
def test_colours_of_tiff_that_are_not_rgb_are_refused(kind, make_tiles):
    folder = make_tiles(4)
    (folder / "images" / "tile000.png").unlink()
    pixels = {"separated": np.zeros((32, 32, 4), np.uint8)}.get(kind, np.zeros((32, 32), np.uint8))
    table = np.zeros((3, 256), np.uint16) if kind == "palette" else None
    tifffile.imwrite(folder / "images" / "tile000.tif", pixels, photometric=kind, colormap=table)
    assert (
        f"1 image cannot be trained on: tile000.tif (has {kind.upper()} colours; convert it to RGB)"
        in refused(folder)
    )


@pytest.mark.parametrize("mode", ["1", "LA", "P", "RGBA", "CMYK"])
def test_what_is_not_refused_is_read(mode, make_tiles, blob):
    """Grey with alpha passed the check and failed in the first batch."""
    folder = make_tiles(4)
    (folder / "images" / "tile000.png").unlink()
    path = folder / "images" / ("tile000.jpg" if mode == "CMYK" else "tile000.png")
    Image.fromarray(blob(0)[0]).convert(mode).save(path)
    discover(DataConfig(folder=folder))
    expected = np.asarray(Image.open(path).convert("RGBA" if mode in ("LA", "RGBA") else "RGB"))[..., :3]
    np.testing.assert_array_equal(read_image(path), expected)


def test_masks_in_colour_are_counted(make_tiles, blob):
    folder = make_tiles(4)
    for name in ("tile000", "tile002"):
        mask = blob(0)[1]
        Image.fromarray(np.stack([mask * 255, mask * 0, mask * 0], axis=2)).save(
            folder / "masks" / f"{name}.png"
        )
    assert "2 masks cannot be used: tile000.png (is a colour picture; save class numbers" in refused(folder)


# -- palettes --------------------------------------------------------------------------------------------------------

BLACK, RED, GREEN = (0, 0, 0), (255, 0, 0), (0, 128, 0)


def with_palettes(folder: Path, *palettes: tuple[tuple[int, int, int], ...]) -> None:
    """Write the masks of a folder with the palettes, one after the other; the indices stay."""
    for index, path in enumerate(sorted((folder / "masks").iterdir())):
        mask = Image.fromarray(np.asarray(Image.open(path)), mode="P")
        mask.putpalette([value for colour in palettes[index % len(palettes)] for value in colour])
        mask.save(path)


def test_one_palette_is_told(make_tiles):
    folder = make_tiles(6)
    with_palettes(folder, (BLACK, RED, GREEN))
    messages = discover(DataConfig(folder=folder)).messages
    assert "6 masks are palette pictures, of which the numbers count: 0 is #000000, 1 is #ff0000." in messages


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ((BLACK, RED), (RED, BLACK), "#ff0000 is number 1 in 3 masks (tile000, tile002, tile004)"),
        ((BLACK, RED), (BLACK, GREEN), "#008000 is number 1 in 3 masks (tile001, tile003, tile005)"),
    ],
)
@pytest.mark.parametrize("tiff", [False, True])
def test_palettes_that_differ_are_refused(one, other, told, tiff, make_tiles):
    folder = make_tiles(6)
    with_palettes(folder, one, other)
    if tiff:
        for path in sorted((folder / "masks").iterdir()):
            image = Image.open(path)
            table = np.zeros((3, 256), np.uint16)
            colours = np.array(image.getpalette()).reshape(-1, 3).T
            table[:, : colours.shape[1]] = colours * 257
            tifffile.imwrite(
                path.with_suffix(".tif"), np.asarray(image), photometric="palette", colormap=table
            )
            path.unlink()
    sentence = refused(folder)
    assert told in sentence
    assert sentence.startswith("6 masks are palette pictures, and their palettes differ")
    assert "plain class numbers" in sentence


def test_palettes_that_differ_in_what_does_not_occur_or_say_nothing_are_none_of_ours(make_tiles):
    folder = make_tiles(6)
    with_palettes(folder, (BLACK, RED, GREEN), (BLACK, RED, RED))
    discover(DataConfig(folder=folder))
    folder = make_tiles(6, name="grey")
    with_palettes(folder, (BLACK, RED), tuple((value, value, value) for value in range(256)))
    assert any("3 masks are palette" in message for message in discover(DataConfig(folder=folder)).messages)


def test_two_classes_may_have_one_colour(make_tiles):
    folder = make_tiles(6, classes=3)
    with_palettes(folder, (BLACK, RED, RED))
    assert len(discover(DataConfig(folder=folder)).classes) == 3


def test_the_example_of_palettes(example):
    sentence = refused(example("tiles_palettes_differ"))
    assert (
        "#ff0000 is number 0 in 3 masks (t0, t2, t4)" in sentence
        or "number 1 in 3 masks (t1, t3, t5)" in sentence
    )


# -- white -----------------------------------------------------------------------------------------------------------


def half_white(folder: Path) -> None:
    for index, path in enumerate(sorted((folder / "masks").iterdir())):
        if index % 2:
            Image.fromarray(np.asarray(Image.open(path)) * np.uint8(255)).save(path)


def test_masks_of_0_1_and_of_0_255_in_one_folder_are_refused_with_the_way_out(make_tiles, blob):
    folder = make_tiles(6)
    half_white(folder)
    sentence = refused(folder)
    assert (
        "3 masks (tile000, tile002, tile004) with 1, 3 masks (tile001, tile003, tile005) with 255" in sentence
    )
    assert "value_255=class_1" in sentence
    found = discover(DataConfig(folder=folder, value_255="class_1"))
    assert found.classes == ("background", "foreground")
    for tile in (*found.train, *found.val):
        expected = blob(int(tile.name[-3:]))[1]
        np.testing.assert_array_equal(found.target(tile, read_mask(tile.mask)), expected)
    ignoring = discover(DataConfig(folder=folder, value_255="ignored"))
    tile = next(tile for tile in (*ignoring.train, *ignoring.val) if tile.name == "tile001")
    assert set(np.unique(ignoring.target(tile, read_mask(tile.mask)))) == {0, 255}
    assert found.fingerprint != ignoring.fingerprint


def test_bilevel_and_jpeg_masks_are_of_the_two_kinds_too(make_tiles):
    folder = make_tiles(4)
    path = folder / "masks" / "tile001.png"
    Image.fromarray(np.asarray(Image.open(path)) * np.uint8(255)).save(path.with_suffix(".jpg"), quality=90)
    path.unlink()
    assert "1 mask (tile001) with 255" in refused(folder)


def test_255_beside_other_classes_is_not_class_1(make_tiles):
    folder = make_tiles(6, classes=3)
    half_white(folder)  # 2 * 255 is 254 in eight bits
    for path in sorted((folder / "masks").iterdir()):
        mask = np.asarray(Image.open(path)).copy()
        mask[mask == 254] = 255
        Image.fromarray(mask).save(path)
    assert "255 cannot mean class 1" in refused(folder, value_255="class_1")
    sentence = "The value 255 occurs in 3 masks and is taken as 'not annotated', 3 of them without any class."
    assert sentence in discover(DataConfig(folder=folder)).messages


def test_the_example_of_two_whites(example):
    assert "3 masks" in refused(example("tiles_half_0_1_half_0_255"))


# -- names -----------------------------------------------------------------------------------------------------------

COMPOSED = unicodedata.normalize("NFC", "übung")
APART = unicodedata.normalize("NFD", "übung")


@pytest.mark.parametrize("sides", [("images",), ("masks",), ("images", "masks")])
@pytest.mark.parametrize("manifest", [None, COMPOSED, APART])
def test_names_are_one_in_any_unicode(sides, manifest, make_tiles):
    folder = make_tiles(4)
    for sub in ("images", "masks"):
        name = APART if sub in sides else COMPOSED
        (folder / sub / "tile000.png").rename(folder / sub / f"{name}.png")
    if manifest:
        lines = [
            f"{name},{manifest if index else COMPOSED}" for index, name in enumerate((manifest, "tile001"))
        ]
        text = "\n".join(["tile,patient", *lines, "tile002,b", "tile003,c"])
        (folder / "manifest.csv").write_text(text, encoding="utf-8")
    found = discover(DataConfig(folder=folder))
    tiles = {tile.name: tile for part in (found.train, found.val) for tile in part}
    assert set(tiles) == {COMPOSED, "tile001", "tile002", "tile003"}
    if manifest:
        assert tiles[COMPOSED].patient == tiles["tile001"].patient == COMPOSED, "one patient is not two"


def test_the_same_name_in_two_unicodes_is_said(make_tiles):
    folder = make_tiles(4)
    for name in (COMPOSED, APART):
        Image.new("RGB", (32, 32)).save(folder / "images" / f"{name}.png")
    if len(list((folder / "images").iterdir())) < 6:
        pytest.skip("this file system takes them for one")
    assert (
        "1 file in 'images' is there more than once, with different suffixes or in different Unicode"
        in refused(folder)
    )


def test_the_example_of_names(example):
    assert describe(DataConfig(folder=example("tiles_nfc_nfd_names"))).startswith("6 tiles")


def test_upper_and_lower_case(make_tiles):
    folder = make_tiles(4)
    (folder / "images" / "tile000.png").rename(folder / "images" / "tile000.PNG")
    assert sum(discover(DataConfig(folder=folder)).counts.values()) == 4, "suffixes in any case"
    (folder / "masks" / "tile001.png").rename(folder / "masks" / "Tile001.png")
    sentence = refused(folder)
    assert "1 image has no mask of the same name in 'masks': tile001." in sentence
    assert (
        "Upper and lower case count, and 1 differ by that from a mask (tile001, Tile001): rename them."
        in sentence
    )


def test_pictures_that_cannot_be_used_say_so_when_they_are_read(tmp_path):
    png_of_16_bits(tmp_path / "deep.png", np.zeros((8, 8, 3), np.uint16))
    with pytest.raises(PictureError, match=r"deep\.png \(has uint16 values"):
        read_image(tmp_path / "deep.png")
    tifffile.imwrite(tmp_path / "white.tif", np.zeros((8, 8), np.uint8), photometric="miniswhite")
    with pytest.raises(PictureError, match=r"white\.tif \(has MINISWHITE colours; save class numbers"):
        read_mask(tmp_path / "white.tif")
