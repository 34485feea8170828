"""Damaged, hostile and vanishing files: each has a known outcome, and nothing ends the process."""

from __future__ import annotations

import shutil
import struct
import zlib

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
import zarr

from napari_kdseg.slides import Slide, SlideError, TileCache, open_slide
from napari_kdseg.slides.readers.openslide_backend import OpenSlideBackend
from napari_kdseg.slides.readers.tiff.tile_check import check_tile, jpeg_2000_size, jpeg_size
from napari_kdseg.slides.readers.tiff_backend import TiffBackend

OPENED = {  # (height, width, channels), CRC of the pixels: those of tifffile, upright (np.rot90)
    "napari-lazy-openslide-bad-omexml.ome.tif": ((50, 50, 1), 4154540943),
    "pillow-crash-0da013a1.tif": ((84, 218, 1), 4025266549),
    "pillow-crash-74d2a784.tif": ((88, 590, 1), 1518245241),
}
REFUSED = {
    "histolab-broken.svs": "not a slide in a format that is known",
    "large_image-zero_gi.tif": "has no pixels",
    "openslide-unopenable.tiff": "not damaged, but .* compressed by method 52479",
    "openslide-unreadable.svs": "none of its tiles can be read",
    "pillow-crash-0c7e0e8e.tif": "ends before its last pixels",
    "pillow-crash-0e16d3bf.tif": "ends before its last pixels",
    "pillow-crash-1152ec2d.tif": "ends before its last pixels",
    "pillow-crash-1185209c.tif": "ends before its last pixels",
    "pillow-crash-2020-10-test.tif": "the list of the images in it is cut off",
    "pillow-crash-338516db.tif": "ends before its last pixels",
    "pillow-crash-4f085cc1.tif": "ends before its last pixels",
    "pillow-crash-63b1dffe.tif": "the list of the images in it is cut off",
    "pillow-crash-86214e58.tif": "ends before its last pixels",
    "pillow-crash-f46f5b2f.tif": "ends before its last pixels",
    "pillow-oom-225817ca.tif": "its headers are broken",
    "wsic-incomplete.dcm": "not damaged, but .*Unsupported photometric interpretation",
}


def test_the_table_names_every_damaged_file(real_data):
    files = {path.name for path in (real_data / "corrupt").iterdir()} - {"README.md"}
    assert files == set(OPENED) | set(REFUSED)


@pytest.mark.parametrize("name", OPENED)
def test_damaged_files_that_open(real_data, name):
    shape, checksum = OPENED[name]
    with open_slide(real_data / "corrupt" / name) as slide:
        assert (*slide.shape, slide.channels) == shape
        pixels = slide.read(0, 0, 0, *slide.shape)
        assert slide.bad_tiles == []
        assert zlib.crc32(pixels.tobytes()) == checksum


@pytest.mark.parametrize("name", REFUSED)
def test_damaged_files_that_are_refused(real_data, name):
    with pytest.raises(SlideError, match=REFUSED[name]) as error:
        open_slide(real_data / "corrupt" / name)
    assert str(error.value).endswith(".")


# -- headers that claim too much -----------------------------------------------------------------------------------


def tiff(path, entries, body=b""):
    """Write a TIFF of one RGB page from (tag, type, value) entries: 3 is a short, 4 a long; bytes begin at 4096."""
    entries = sorted([*entries, (258, 3, 8), (262, 3, 2), (277, 3, 3)])
    packed = b"".join(
        struct.pack("<HHI", tag, kind, 1)
        + (struct.pack("<HH", value, 0) if kind == 3 else struct.pack("<I", value))
        for tag, kind, value in entries
    )
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + struct.pack("<I", 0)
    path.write_bytes(head.ljust(4096, b"\0") + body)
    return path


def tiled(width, height, tile, compression, count):
    return [
        (256, 4, width),
        (257, 4, height),
        (259, 3, compression),
        (322, 4, tile),
        (323, 4, tile),
        (324, 4, 4096),
        (325, 4, count),
    ]


CLAIMS = {  # what a header of a few bytes claims, and what is said of it
    "tiles of 60 000 px": (tiled(59984, 59984, 59984, 8, 100), "claims tiles of 59984"),
    "an image of 2^31 px": (tiled(2**31 - 1, 2**31 - 1, 256, 8, 100), "claims 2147483647 x 2147483647"),
    "a million tiles, one listed": (tiled(256_000, 256_000, 256, 8, 100), "table of tiles is incomplete"),
    "no width": (tiled(0, 100, 256, 8, 100), "no pixels"),
    "tiles of no width": (tiled(200, 200, 0, 8, 100), "its strips have no rows"),
    "a tile beyond the end": (tiled(200, 200, 256, 8, 1_000_000), "ends before"),
    "one strip of gigabytes": (
        [(256, 4, 60_000), (257, 4, 60_000), (259, 3, 8), (278, 4, 60_000), (273, 4, 4096), (279, 4, 100)],
        "in one piece",
    ),
    "a compression nobody knows": (tiled(200, 200, 256, 52479, 100), "52479"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_headers_that_claim_too_much_are_refused(tmp_path, name):
    entries, said = CLAIMS[name]
    path = tiff(tmp_path / "claims.tif", entries, b"\0" * 200)
    with pytest.raises(SlideError, match=said):
        open_slide(path)


def giant_jpeg() -> bytes:
    data = bytearray(imagecodecs.jpeg8_encode(np.full((256, 256, 3), 90, np.uint8)))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", 65280, 65280)
    return bytes(data)


def giant_jpeg_2000() -> bytes:
    data = bytearray(imagecodecs.jpeg2k_encode(np.full((256, 256, 3), 90, np.uint8), codecformat="j2k"))
    place = data.index(b"\xff\x51")
    data[place + 6 : place + 14] = struct.pack(">II", 65280, 65280)
    return bytes(data)


@pytest.mark.parametrize(
    ("compression", "data"), [(7, giant_jpeg()), (33005, giant_jpeg_2000()), (34712, giant_jpeg_2000())]
)
def test_a_tile_that_claims_too_much_is_not_decoded(tmp_path, compression, data):
    path = tiff(tmp_path / "bomb.tif", tiled(200, 200, 256, compression, len(data)), data)
    with pytest.raises(SlideError, match=r"none of its tiles can be read \(it claims 65280 x 65280 px"):
        open_slide(path)


def test_sizes_are_found_in_tiles():
    pixels = np.zeros((30, 50, 3), np.uint8)
    assert jpeg_size(imagecodecs.jpeg8_encode(pixels)) == (30, 50)
    for form in ("j2k", "jp2"):
        assert jpeg_2000_size(imagecodecs.jpeg2k_encode(pixels, codecformat=form)) == (30, 50)
    for compression in (7, 33005):
        with pytest.raises(ValueError, match="no size"):
            check_tile(b"\xff\xd8" + b"\0" * 50, compression, 256, 256)


def test_a_zarr_of_giant_chunks_is_refused(tmp_path):
    group = zarr.create_group(tmp_path / "giant.zarr", zarr_format=2)
    group.create_array("0", shape=(60_000, 60_000), chunks=(60_000, 60_000), dtype="uint8")
    group.attrs["multiscales"] = [{"version": "0.4", "axes": ["y", "x"], "datasets": [{"path": "0"}]}]
    with pytest.raises(SlideError, match=r"chunks are of 3\.4 GB"):
        open_slide(tmp_path / "giant.zarr")


# -- while it is shown ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiff-pages", "ome-tiff-subifd", "ome-zarr-0.4", "ome-zarr-0.5"])
def test_a_read_error_in_any_tile_is_survived(name, files, pyramid, monkeypatch):
    """One tile after the other cannot be read: it alone is grey, reported once, and well again with the disk."""
    with open_slide(files[name], cache=TileCache(0)) as slide:
        read_tile, broken, heard = slide._backend.read_tile, [], []
        slide.on_bad_tile(heard.append)

        def fail(*place):
            if place == broken[0]:
                raise OSError("Input/output error")
            return read_tile(*place)

        monkeypatch.setattr(slide._backend, "read_tile", fail)
        places = [
            (index, row, column)
            for index, level in enumerate(slide.levels)
            for row in range(level.grid[0])
            for column in range(level.grid[1])
        ]
        for level, row, column in places:
            broken[:] = [(level, row, column)]
            (th, tw), expected = slide.levels[level].tile, pyramid[level].copy()
            expected[row * th : (row + 1) * th, column * tw : (column + 1) * tw] = 128
            np.testing.assert_array_equal(slide.read(level, 0, 0, *expected.shape[:2]), expected)
            slide.read(level, row * th, column * tw, 1, 1)  # damaged still: not reported again
        assert [bad[:3] for bad in heard] == places
        assert heard == slide.bad_tiles
        assert all("Input/output error" in bad.reason for bad in heard)
        broken[:] = [None]
        np.testing.assert_array_equal(slide.read(0, 0, 0, *slide.shape), pyramid[0])


def test_a_listener_that_fails_harms_no_picture(files, monkeypatch, caplog):
    with open_slide(files["tiff-pages"], cache=TileCache(0)) as slide:

        def fail(*anything):
            raise OSError("gone")

        monkeypatch.setattr(slide._backend, "read_tile", fail)
        slide.on_bad_tile(lambda bad: 1 / 0)
        assert (slide.read(0, 0, 0, 50, 50) == 128).all()
        assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("name", ["tiff-pages", "ome-tiff-subifd", "tiff-strips", "png"])
def test_a_file_deleted_while_it_is_shown(name, files, pyramid, tmp_path):
    copy = tmp_path / files[name].name
    copy.write_bytes(files[name].read_bytes())
    with open_slide(copy, cache=TileCache(0)) as slide:
        slide.read(0, 0, 0, 100, 100)
        try:
            copy.unlink()
        except PermissionError:
            pytest.skip("this system keeps open files from being deleted")
        np.testing.assert_array_equal(slide.read(0, 0, 0, *slide.shape), pyramid[0])
    with pytest.raises(SlideError, match="There is no slide"):
        open_slide(copy)


@pytest.mark.parametrize("reader", [TiffBackend, OpenSlideBackend])
def test_a_file_cut_off_while_it_is_shown(reader, real_data, tmp_path):
    """A copy that is still running, or a share that breaks: what was there stays, the rest is grey."""
    copy = tmp_path / "CMU.svs"
    copy.write_bytes((real_data / "slides" / "CMU-1-Small-Region.svs").read_bytes())
    with Slide(reader(copy), copy, cache=TileCache(0)) as slide:
        before = slide.read(0, 0, 0, 240, 480)
        with copy.open("r+b") as stream:
            stream.truncate(600_000)
        np.testing.assert_array_equal(slide.read(0, 0, 0, 240, 480), before)
        assert (slide.read(0, slide.shape[0] - 50, slide.shape[1] - 50, 50, 50) == 128).all()
        assert slide.bad_tiles


def test_an_ome_zarr_deleted_while_it_is_shown(files, tmp_path):
    copy = shutil.copytree(files["ome-zarr-0.4"], tmp_path / "gone.ome.zarr")
    with open_slide(copy, cache=TileCache(0)) as slide:
        shutil.rmtree(copy)
        assert slide.read(0, 0, 0, 300, 300).shape == (300, 300, 3)


def test_openslide_is_not_asked_about_giants(tmp_path, monkeypatch):
    """GLib ends the process where OpenSlide is refused memory: such a header must not reach it."""

    def never(*anything):
        raise AssertionError("OpenSlide was asked")

    path = tiff(tmp_path / "giant.tif", CLAIMS["tiles of 60 000 px"][0], b"\0" * 200)
    monkeypatch.setattr(openslide, "OpenSlide", type("No", (), {"detect_format": never, "__init__": never}))
    with pytest.raises(SlideError, match="claims tiles"):
        open_slide(path)


def test_a_jpeg_tile_cut_at_the_edge_is_read(tmp_path):
    """Some writers cut the last tiles to what is left of the picture instead of filling them up."""
    pixels = np.kron(np.arange(20, dtype=np.uint8).reshape(4, 5) * 12, np.ones((16, 16), np.uint8))[..., None]
    pixels = np.repeat(pixels, 3, axis=2)
    tiles = [
        imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels[y : y + 48, x : x + 48]), level=95)
        for y in (0, 48)
        for x in (0, 48)
    ]
    path = tmp_path / "cut.tif"
    tifffile.imwrite(
        path,
        iter(tiles),
        shape=pixels.shape,
        dtype=np.uint8,
        tile=(48, 48),
        photometric="ycbcr",
        subsampling=(2, 2),
        compression="jpeg",
        metadata=None,
    )
    with open_slide(path) as slide:
        assert slide.bad_tiles == []
        assert np.abs(slide.read(0, 0, 0, 64, 80).astype(int) - pixels).max() <= 3
