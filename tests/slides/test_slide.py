from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_kdseg.slides import Slide, SlideError, TileCache, open_slide
from napari_kdseg.slides.readers.backend import Metadata, make_level
from napari_kdseg.slides.readers.image_backend import ArrayBackend
from napari_kdseg.slides.readers.openslide_backend import OpenSlideBackend


def test_the_scale_comes_from_the_file_or_from_a_person(files):
    for name in ("ome-zarr-0.4", "ome-zarr-0.5", "ome-tiff-subifd", "tiff-pages"):
        with open_slide(files[name]) as slide:
            assert slide.mpp == pytest.approx((0.5, 0.5)), name
            assert slide.size_um == pytest.approx((451.5, 550.5))
            assert slide.brightfield
    with open_slide(files["png"]) as slide:
        assert slide.mpp is None
        assert slide.size_um is None
        slide.mpp = 0.25
        assert slide.mpp == (0.25, 0.25)
        for wrong in (0, -1, float("nan"), (0.5, float("inf"))):
            with pytest.raises(SlideError, match="positive"):
                slide.mpp = wrong
        assert slide.mpp == (0.25, 0.25)
    with open_slide(files["png"], mpp=(0.3, 0.4)) as slide:
        assert slide.mpp == (0.3, 0.4)


def test_outside_is_background(picture):
    slide = Slide(ArrayBackend(picture), "array")
    region = slide.read(0, -10, -20, 40, 50)
    assert (region[:10] == 255).all()
    assert (region[:, :20] == 255).all()
    np.testing.assert_array_equal(region[10:, 20:], picture[:30, :30])
    height, width = slide.shape
    assert (slide.read(0, height + 5, width + 5, 3, 3) == 255).all()
    assert slide.read(0, -500, 0, 20, 20).min() == 255
    np.testing.assert_array_equal(slide.read(0, height - 2, width - 2, 4, 4)[:2, :2], picture[-2:, -2:])


def test_a_slide_without_small_level_is_given_some():
    pixels = np.random.default_rng(0).integers(0, 255, (2967, 4443, 3), dtype=np.uint8)
    slide = Slide(ArrayBackend(pixels), "array")
    assert [level.shape for level in slide.levels] == [(2967, 4443), (1484, 2222), (742, 1111)]
    assert slide.levels[1].downsample == (2967 / 1484, 4443 / 2222)
    even = pixels[:2966, :4442].astype(np.float64)
    halved = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4
    got = np.asarray(slide.as_layers()[1])
    assert np.abs(got[:1483, :2221] - halved).max() <= 0.5
    np.testing.assert_array_equal(slide.read(1, 700, 900, 100, 100), got[700:800, 900:1000])
    assert max(slide.as_layers()[-1].shape) <= 2048


class _Claims:
    """A backend that only claims a size."""

    def __init__(self, shape):
        self.metadata = Metadata("test", (make_level(shape, shape, (512, 512)),), brightfield=True)


def test_a_giant_without_pyramid_is_refused_with_advice():
    with pytest.raises(SlideError, match=r"100000 x 80000 px.*pyramid"):
        Slide(_Claims((80_000, 100_000)), "giant")


def test_read_scaled_equals_a_level_that_is_there(files, pyramid):
    with open_slide(files["ome-tiff-subifd"]) as slide:
        for index, level in enumerate(slide.levels):
            scaled = slide.read_scaled(level.downsample, 10, 20, 100, 90)
            np.testing.assert_array_equal(scaled, pyramid[index][10:110, 20:110])


def test_read_scaled_averages_whole_pixels(picture):
    slide = Slide(ArrayBackend(picture), "array")
    block = picture[30 : 30 + 60, 45 : 45 + 90].astype(np.float64).reshape(20, 3, 30, 3, 3).mean(axis=(1, 3))
    assert (
        np.abs(slide.read_scaled(3, 10, 15, 20, 30) - block).max() <= 1
    )  # Pillow rounds twice: down, across


@pytest.mark.parametrize("downsample", [0.7, 1.3, (2.5, 3.7), 6.01])
def test_neighbouring_scaled_regions_fit_together(picture, downsample):
    slide = Slide(ArrayBackend(picture), "array")
    whole = slide.read_scaled(downsample, 0, 0, 80, 96).astype(int)
    for y in (0, 40):
        for x in (0, 48):
            part = slide.read_scaled(downsample, y, x, 40, 48)
            assert np.abs(part - whole[y : y + 40, x : x + 48]).max() <= 1


def test_read_scaled_lies_where_it_should():
    ramp = np.broadcast_to(np.arange(250, dtype=np.uint8)[:, None, None], (250, 60, 3)).copy()
    slide = Slide(ArrayBackend(ramp), "array")
    scaled = slide.read_scaled(2.5, 20, 4, 40, 10)[:, 5, 0]
    np.testing.assert_allclose(scaled, (np.arange(20, 60) + 0.5) * 2.5 - 0.5, atol=1.0, equal_nan=False)


def test_deep_pixels_keep_their_type(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 60_000, (4, 300, 280), dtype=np.uint16)
    path = tmp_path / "cells.ome.tif"
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "CD3", "CD8", "CK"]}}
    tifffile.imwrite(path, pixels, tile=(64, 64), metadata=metadata, ome=True, compression="zlib")
    with open_slide(path) as slide:
        assert not slide.brightfield
        assert (slide.channels, slide.dtype) == (4, np.uint16)
        assert slide.channel_names == ("DAPI", "CD3", "CD8", "CK")
        assert slide.background == (0, 0, 0, 0)
        np.testing.assert_array_equal(slide.read(0, 0, 0, 300, 280), np.moveaxis(pixels, 0, 2))
        block = pixels[2, :40, :40].astype(float).reshape(20, 2, 20, 2).mean(axis=(1, 3))
        assert np.abs(slide.read_scaled(2, 0, 0, 20, 20)[..., 2] - block).max() <= 0.51


def test_dark_rgb_is_not_brightfield(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 20, (80, 90, 3), dtype=np.uint8)).save(
        tmp_path / "dark.png"
    )
    with open_slide(tmp_path / "dark.png") as slide:
        assert not slide.brightfield
        assert slide.background == (0, 0, 0)


def spoil_tile(path, index):
    """Overwrite the compressed bytes of one tile."""
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages.first.dataoffsets[index], tif.pages.first.databytecounts[index]
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = b"\xff" * count
    path.write_bytes(content)


def check_spoilt(slide, whole, side):
    """All but the first tile in the second column are as they were, whoever reads in whatever order."""
    with slide:
        places = [(side * (i % 2), side * (i // 2)) for i in range(6)]  # (y, x); place 2 is the damaged tile
        good = [place for i, place in enumerate(places) if i != 2]
        for _ in range(2):
            assert (slide.read(0, 0, side, side, side) == 128).all()
        assert [bad[:3] for bad in slide.bad_tiles] == [(0, 0, 1)]
        assert slide.bad_tiles[0].reason
        with ThreadPoolExecutor(
            8
        ) as pool:  # an OpenSlide handle is spoilt for all threads by one damaged tile
            parts = list(pool.map(lambda i: slide.read(0, *places[i % 6], 90, 77), range(48)))
        for i, part in enumerate(parts):
            if places[i % 6] in good:
                y, x = places[i % 6]
                np.testing.assert_array_equal(part, whole[y : y + 90, x : x + 77])
        assert len(slide.bad_tiles) == 1


def test_a_damaged_tile_is_grey_and_listed_once(tmp_path, picture):
    path = tmp_path / "spoilt.tif"
    pixels = np.ascontiguousarray(np.tile(picture, (1, 2, 1))[:800, :1400])
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", compression="zlib", metadata=None)
    spoil_tile(path, 1)
    check_spoilt(open_slide(path, cache=TileCache(0)), pixels, 256)


def test_a_damaged_tile_does_not_spoil_the_rest_for_openslide(tmp_path, real_data):
    path = tmp_path / "spoilt.svs"
    path.write_bytes((real_data / "slides" / "CMU-1-Small-Region.svs").read_bytes())
    with Slide(OpenSlideBackend(path), path) as slide:
        assert slide.levels[0].tile == (480, 480)
        whole = slide.read(0, 0, 0, 1500, 1500)
    spoil_tile(path, 2)  # native tiles are 240 px wide: the third lies in the second block
    check_spoilt(Slide(OpenSlideBackend(path), path, cache=TileCache(0)), whole, 480)


@pytest.mark.parametrize("name", ["ome-zarr-0.5", "ome-tiff-subifd", "tiff-pages"])
def test_many_threads_see_the_same_pixels(name, files, pyramid):
    with open_slide(files[name], cache=TileCache(2**20)) as slide, ThreadPoolExecutor(8) as pool:
        boxes = [tuple(box) for box in np.random.default_rng(2).integers(0, 700, (60, 2)).tolist()]
        regions = pool.map(lambda box: slide.read(0, *box, 150, 200), boxes)
        for (y, x), region in zip(boxes, regions, strict=True):
            np.testing.assert_array_equal(region, pyramid[0][y : y + 150, x : x + 200])


def test_closing_waits_for_reads(picture):
    entered, go, closed = threading.Event(), threading.Event(), []

    class Slow(ArrayBackend):
        def read_tile(self, level, row, column):
            entered.set()
            go.wait(5)
            assert not closed
            return super().read_tile(level, row, column)

        def close(self):
            closed.append(True)

    slide = Slide(Slow(picture), "array")
    results = []
    reader = threading.Thread(target=lambda: results.append(slide.read(0, 0, 0, 10, 10)))
    reader.start()
    assert entered.wait(5)
    closer = threading.Thread(target=slide.close)
    closer.start()
    go.set()
    reader.join(5)
    closer.join(5)
    assert closed == [True]
    assert slide.bad_tiles == []
    np.testing.assert_array_equal(results[0], picture[:10, :10])
    with pytest.raises(SlideError, match="closed"):
        slide.read(0, 600, 600, 10, 10)


def test_identity_follows_the_content(files, tmp_path, picture):
    for name in ("png", "tiff-strips", "tiff-pages"):
        copy = tmp_path / f"renamed-{files[name].name}"
        copy.write_bytes(files[name].read_bytes())
        with open_slide(files[name]) as one, open_slide(copy) as other:
            assert one.identity() == other.identity()
    with open_slide(files["ome-zarr-0.5"]) as one, open_slide(files["ome-zarr-0.4"]) as other:
        assert one.identity() == one.identity() != other.identity()
    changed = picture.copy()
    changed[0, 0, 0] ^= 1
    Image.fromarray(changed).save(tmp_path / "changed.png")
    with open_slide(files["png"]) as one, open_slide(tmp_path / "changed.png") as other:
        assert one.identity() != other.identity()


def test_a_pickled_slide_is_opened_again(files):
    with open_slide(files["tiff-pages"], mpp=0.7) as slide, pickle.loads(pickle.dumps(slide)) as other:
        assert other.mpp == (0.7, 0.7)
        np.testing.assert_array_equal(other.read(1, 5, 6, 20, 20), slide.read(1, 5, 6, 20, 20))


def test_a_view_is_not_pickled(files):
    with open_slide(files["tiff-pages"]) as slide, pytest.raises(TypeError, match="map it again"):
        pickle.dumps(slide.mapped(np.negative, name="negative"))
