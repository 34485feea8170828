"""What cannot be read is said in one of three sentences, and a tile that decodes with an error is a bad tile."""

from __future__ import annotations

import logging
import random
import re

import imagecodecs
import numpy as np
import openslide
import pytest
import rasterio
import tifffile
from rasterio.io import MemoryFile

from napari_kdseg.errors import SlideError, explain
from napari_kdseg.jobs import run_inline
from napari_kdseg.slides import TileCache, open_slide
from napari_kdseg.slides.readers import refusals
from napari_kdseg.slides.readers.tiff import tile_check
from napari_kdseg.slides.readers.tiff.jpeg import JpegTiles
from napari_kdseg.slides.writing.config import ConvertConfig
from napari_kdseg.slides.writing.convert import convert

RAW_TEXT = re.compile(r"Error\b|Exception|object at|out of range|NoneType|b'|\bself\b|0x[0-9a-f]{6}")


def said_of(path) -> str:
    with pytest.raises(SlideError) as caught:
        open_slide(path)
    return str(caught.value)


# -- whole files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["jpegxl", "jpegxr", "lerc"])
def test_rarer_codecs_are_decoded(real_data, name):
    path = real_data / "awkward" / "tiff_codec_not_known_said_damaged" / f"{name}.tif"
    with open_slide(path, cache=TileCache(0)) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 0, *slide.shape), tifffile.imread(path))
        assert slide.bad_tiles == []


@pytest.mark.parametrize("codec", ["JPEGXL", "JPEGXR", "LERC"])
def test_a_codec_that_is_not_there_is_named(real_data, codec, monkeypatch):
    path = real_data / "awkward" / "tiff_codec_not_known_said_damaged" / f"{codec.lower()}.tif"
    monkeypatch.setattr(getattr(imagecodecs, codec), "available", False)
    assert re.search(f"not damaged.*compressed by {codec}.*tiled TIFF", said_of(path))


def test_more_pages_than_are_read(real_data):
    said = said_of(real_data / "awkward" / "tiff_more_than_1000_pages" / "series.tif")
    assert "not damaged" in said
    assert "1100 images" in said


def one_strip(path, pixels, **options):
    tifffile.imwrite(path, pixels, rowsperstrip=pixels.shape[0], metadata=None, **options)
    return path


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "deflate", "lzw"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_picture_in_one_strip(tmp_path, compression, dtype, byteorder):
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(0).integers(0, top, (1100, 700, 3), dtype, endpoint=True)
    path = one_strip(
        tmp_path / "strip.tif", pixels, photometric="rgb", compression=compression, byteorder=byteorder
    )
    with open_slide(path, cache=TileCache(0)) as slide:
        assert max(slide.levels[0].tile) <= 1100
        region = slide.read(0, 500, 130, 600, 500)
        expected = tifffile.imread(path)[500:1100, 130:630]
        if slide.dtype == expected.dtype:
            np.testing.assert_array_equal(region, expected)


def test_the_awkward_one_strip_opens_and_is_converted(real_data, tmp_path):
    path = real_data / "awkward" / "tiff_whole_image_in_one_strip" / "slide.tif"
    output = tmp_path / "slide.ome.zarr"
    run_inline(convert, ConvertConfig(slide=str(path), output=output))
    expected = tifffile.imread(path)
    for file in (path, output):
        with open_slide(file) as slide:
            assert slide.shape == expected.shape[:2]
            np.testing.assert_array_equal(slide.read(0, 2400, 1300, 300, 300), expected[2400:2700, 1300:1600])


def test_a_strip_larger_than_memory_allows_is_not_supported_rather_than_damaged(tmp_path, monkeypatch):
    path = one_strip(
        tmp_path / "strip.tif", np.zeros((2000, 2000, 3), np.uint8), photometric="rgb", compression="deflate"
    )
    monkeypatch.setattr("napari_kdseg.slides.readers.tiff.check.MAX_PICTURE_BYTES", 11_999_999)
    assert re.search(r"not damaged.*2000 x 2000 pixels in one piece.*tiled TIFF", said_of(path))


def test_a_truncated_file_says_how_much_is_there(tmp_path):
    path = tmp_path / "whole.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (512, 512, 3), np.uint8)
    tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb", metadata=None)
    with tifffile.TiffFile(path) as tif:
        offsets = tif.pages[0].dataoffsets
    path.write_bytes(path.read_bytes()[: offsets[10] + 5])
    assert "truncated or damaged: it ends before its last pixels: 10 of 16 tiles" in said_of(path)


def test_no_refusal_carries_raw_text(real_data, tmp_path):
    """Mutated headers of a small slide: whatever is refused is refused in words."""
    source = (real_data / "awkward" / "_slide" / "slide.tif").read_bytes()
    rng, path, refusals_made = random.Random(0), tmp_path / "mutated.tif", []
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    with tifffile.TiffFile(real_data / "awkward" / "_slide" / "slide.tif") as tif:
        places = [tag.offset + part for page in tif.pages for tag in page.tags for part in range(12)]
    for _ in range(150):
        data = bytearray(source)
        for place in rng.sample(places, 2):
            data[place] = rng.randrange(256)
        path.write_bytes(data)
        try:
            open_slide(path).close()
        except SlideError as error:
            refusals_made.append(str(error))
    assert len(refusals_made) > 20
    assert [said for said in refusals_made if RAW_TEXT.search(said)] == []
    assert all(said.endswith(".") for said in refusals_made)


def test_a_fault_of_ours_is_said_to_be_one(tmp_path):
    """What this program gets wrong is not called damage of the file, and comes with what is needed to mend it."""
    code = compile("def read():\n    return [][3]\n", str(refusals.PACKAGE / "slides" / "made_up.py"), "exec")
    names: dict = {}
    exec(code, names)
    with pytest.raises(IndexError) as caught:
        names["read"]()
    said = str(refusals.refusal(tmp_path / "good.tif", caught.value))
    assert "damaged" not in said
    assert "IndexError: list index out of range (made_up.py, line 2)" in said
    assert "report" in said
    assert "made_up.py" in explain(caught.value)


# -- tiles -----------------------------------------------------------------------------------------------------------


def mutations(data: bytes, seed: int) -> dict[str, bytes]:
    """The data of a tile damaged in the ways that disks and copies damage files."""
    rng, half = random.Random(seed), len(data) // 2
    place = rng.randrange(half, len(data) - 70)
    return {
        "its second half is zeros": data[:half] + bytes(len(data) - half),
        "64 bytes are zeros": data[:place] + bytes(64) + data[place + 64 :],
        "64 bytes are noise": data[:place] + rng.randbytes(64) + data[place + 64 :],
        "it is cut off": data[:half],
        "one bit is another": data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :],
    }


def gdal_warns(data: bytes) -> bool:
    """Whether libjpeg, within GDAL, warns of a JPEG or refuses it."""
    with rasterio.Env(GDAL_ERROR_ON_LIBJPEG_WARNING="YES"):
        try:
            with MemoryFile(data) as memory, memory.open(driver="JPEG") as picture:
                picture.read()
        except (rasterio.RasterioIOError, rasterio.errors.RasterioError):
            return True
    return False


def is_refused(tiles: JpegTiles, data: bytes) -> bool:
    try:
        tiles.decode(data)
    except (ValueError, imagecodecs.Jpeg8Error):
        return True
    return False


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_jpeg_tile_is_refused_where_libjpeg_warns_of_it(picture, subsampling):
    pixels = np.ascontiguousarray(picture[:128, :128])
    data = imagecodecs.jpeg8_encode(pixels, level=90, subsampling=subsampling)
    tiles = JpegTiles(None, "YCBCR", (128, 128))
    np.testing.assert_array_equal(tiles.decode(data), imagecodecs.jpeg8_decode(data))
    found = 0
    for seed in range(8):
        for kind, mutated in mutations(data, seed).items():
            refused = is_refused(tiles, mutated)
            assert refused or not gdal_warns(mutated), kind
            found += refused
    assert found > 25


def with_damaged_tile(source, path, tile: int, level: int = 0):
    """A copy of a TIFF in which the second half of one tile is zeros."""
    with tifffile.TiffFile(source) as tif:
        page = tif.series[0].levels[level].pages[0]
        start, count = page.dataoffsets[tile], page.databytecounts[tile]
    data = bytearray(source.read_bytes())
    data[start + count // 2 : start + count] = bytes(count - count // 2)
    path.write_bytes(data)
    return path


def test_half_a_jpeg_tile_of_zeros_is_a_bad_tile(real_data, tmp_path):
    source = real_data / "slides" / "CMU-1-Small-Region.svs"
    path = with_damaged_tile(source, tmp_path / "damaged.svs", tile=40)
    with tifffile.TiffFile(path) as tif:
        across = -(-tif.pages[0].imagewidth // 240)
    row, column = divmod(40, across)
    with open_slide(path, cache=TileCache(0)) as slide:
        assert slide.reader == "tifffile"
        assert (slide.read(0, row * 240, column * 240, 240, 240) == 128).all()
        assert [bad[:3] for bad in slide.bad_tiles] == [(0, row, column)]
        assert slide.bad_tiles[0].reason == "its JPEG data are damaged or cut off"
        whole = slide.read(0, 0, 0, 240, 240)
        assert len(slide.bad_tiles) == 1
    with openslide.OpenSlide(path) as other:
        np.testing.assert_array_equal(np.asarray(other.read_region((0, 0), 0, (240, 240)))[..., :3], whole)
        with pytest.raises(openslide.OpenSlideError, match=r"(?i)premature end"):
            other.read_region((column * 240, row * 240), 0, (240, 240))


def test_a_damaged_jpeg_picture_is_refused(picture, tmp_path):
    path = tmp_path / "picture.jpg"
    data = imagecodecs.jpeg8_encode(np.ascontiguousarray(picture[:128, :128]))
    path.write_bytes(data)
    open_slide(path).close()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2 - 2) + b"\xff\xd9")
    assert "picture.jpg is truncated or damaged" in said_of(path)


@pytest.mark.parametrize(
    ("options", "compression"),
    [
        ({"photometric": "rgb"}, "jpeg"),
        ({"photometric": "rgb", "planarconfig": "separate"}, "jpeg"),
        ({"photometric": "minisblack"}, "jpeg"),
        ({"photometric": "rgb"}, "jpeg2000"),
        ({"photometric": "rgb"}, "deflate"),
        ({"photometric": "rgb", "predictor": True}, "lzw"),
        ({"photometric": "rgb"}, "zstd"),
        ({"photometric": "rgb"}, "jpegxl"),
    ],
)
def test_a_tile_of_which_half_is_zeros_is_bad_whatever_the_codec(picture, tmp_path, options, compression):
    pixels = picture[:256, :256]
    if options["photometric"] == "minisblack":
        pixels = pixels[..., 0]
    elif "planarconfig" in options:
        pixels = np.moveaxis(pixels, -1, 0)
    good = tmp_path / "good.tif"
    tifffile.imwrite(good, pixels, tile=(128, 128), compression=compression, metadata=None, **options)
    with open_slide(good, cache=TileCache(0)) as slide:
        expected = slide.read(0, 0, 0, 256, 256)
        assert slide.bad_tiles == []
    with open_slide(with_damaged_tile(good, tmp_path / "bad.tif", tile=3), cache=TileCache(0)) as slide:
        pixels = slide.read(0, 0, 0, 256, 256)
        assert [bad[:3] for bad in slide.bad_tiles] == [(0, 1, 1)]
        expected[128:, 128:] = pixels[128, 128]
        np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("side", [1, 8, 40, 256, 300, 5000, 70_000])
def test_sizes_are_found_in_rarer_tiles(side):
    """A codec makes room for what a header claims, so sizes are read before it is asked."""
    other = 2 * side if side < 300 else 3
    pixels = np.zeros((side, other, 3), np.uint8)
    assert tile_check.jpeg_xl_size(imagecodecs.jpegxl_encode(pixels, effort=1)) == (side, other)
    assert tile_check.jpeg_xr_size(imagecodecs.jpegxr_encode(pixels)) == (side, other)
    assert tile_check.lerc_size(imagecodecs.lerc_encode(pixels[..., 0].copy())) == (side, other)
    boxed = imagecodecs.jpegxl_encode(pixels, effort=1, usecontainer=True)
    assert tile_check.jpeg_xl_size(boxed) == (side, other)


@pytest.mark.parametrize("compression", [50002, 34934, 34887])
def test_tiles_of_rarer_codecs_that_claim_too_much(compression):
    encode = {
        50002: imagecodecs.jpegxl_encode,
        34934: imagecodecs.jpegxr_encode,
        34887: imagecodecs.lerc_encode,
    }
    data = encode[compression](np.zeros((300, 40), np.uint8))
    tile_check.check_tile(data, compression, 300, 40)
    with pytest.raises(ValueError, match="claims 40 x 300 px in a tile of 256 x 256"):
        tile_check.check_tile(data, compression, 256, 256)
    for broken in (b"", data[:1], bytes(len(data))):
        with pytest.raises(ValueError, match="no size"):
            tile_check.check_tile(broken, compression, 300, 40)
