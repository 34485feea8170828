"""Every file either opens or says in plain words why not."""

from __future__ import annotations

import shutil

import numpy as np
import openslide
import pytest
import tifffile
import zarr

from napari_kdseg.slides import SlideError, open_slide, slides_in
from napari_kdseg.slides.readers.openslide_backend import _bounds

REAL = {
    "CMU-1-Small-Region.svs": ((2967, 2220), 0.499, 20, "tifffile"),
    "TCGA-CR-7395-01A-01-TS1.svs": ((3567, 4443), None, None, "tifffile"),
    "dicom-cmu-1-small-region": ((2967, 2220), 0.499, None, "openslide"),
    "test3-TRITC-560.ndpi": ((4864, 3968), 0.228175, 40, "openslide"),
    "boxes-generic-pyramid.tiff": ((250, 300), None, None, "tifffile"),
    "XYC-coordinate-grid-jpeg.ome.tiff": ((512, 512), None, None, "tifffile"),
}


@pytest.mark.parametrize("name", REAL)
def test_real_slides(real_data, name):
    shape, mpp, power, reader = REAL[name]
    with open_slide(real_data / "slides" / name) as slide:
        assert slide.shape == shape
        assert slide.mpp == (None if mpp is None else pytest.approx((mpp, mpp), rel=1e-5))
        assert slide.objective_power == power
        assert slide.reader == reader
        assert slide.brightfield == (not name.endswith("ndpi"))
        assert slide.bad_tiles == []
        assert max(slide.levels[-1].shape) <= 2048
        for index, level in enumerate(slide.levels):
            assert level.downsample == (shape[0] / level.shape[0], shape[1] / level.shape[1])
            height, width = level.shape
            region = slide.read(index, height // 3, width // 3, 64, 48)
            assert region.shape == (64, 48, 3)
            assert region.dtype == np.uint8
        for picture in slide.associated:
            assert slide.read_associated(picture).shape[2] == 3
        with pytest.raises(SlideError, match="no picture named"):
            slide.read_associated("nothing")
        assert slide.identity() == slide.identity()


@pytest.mark.parametrize("name", [name for name in REAL if not name.startswith("XYC")])
def test_pixels_are_those_of_openslide(real_data, name):
    path = real_data / "slides" / name
    direct = openslide.OpenSlide(next(path.glob("*.dcm")) if path.is_dir() else path)
    with open_slide(path) as slide, direct:
        height, width = slide.shape
        for y, x in [(0, 0), (height // 2 - 31, width // 2 + 17), (height - 400, width - 300)]:
            y, x = max(y, 0), max(x, 0)
            h, w = min(400, height - y), min(300, width - x)
            wanted = np.asarray(direct.read_region((x, y), 0, (w, h)))[..., :3]
            np.testing.assert_array_equal(slide.read(0, y, x, h, w), wanted)


def test_tiles_are_put_where_they_belong(real_data):
    """Each 8 x 8 block of this picture holds its own coordinates (as far as JPEG lets it)."""
    with open_slide(real_data / "slides" / "XYC-coordinate-grid-jpeg.ome.tiff") as slide:
        wanted = tifffile.imread(real_data / "slides" / "XYC-coordinate-grid-jpeg.ome.tiff")
        np.testing.assert_array_equal(slide.read(0, 100, 60, 300, 400), wanted[100:400, 60:460])


@pytest.mark.parametrize("name", ["{}.DCM", "{}", "I{:.5}"])
def test_files_of_a_dicom_slide_may_be_called_otherwise(real_data, tmp_path, name):
    """Upper case, or no ending at all, as archives give them out; with what is no slide beside them."""
    source = real_data / "slides" / "dicom-cmu-1-small-region"
    for number, file in enumerate(sorted(source.glob("*.dcm"))):
        shutil.copyfile(file, tmp_path / name.format(f"{number}.{file.stem}"))
    other = (next(source.glob("*.dcm"))).read_bytes()[:132]
    (tmp_path / "0").write_bytes(other)  # DICOM, but nothing that can be read
    (tmp_path / "0.dcm").write_bytes(other)
    (tmp_path / "README").write_text("from the archive")
    assert slides_in(str(tmp_path)) == [str(tmp_path)]
    with open_slide(tmp_path) as slide, openslide.OpenSlide(next(source.glob("*.dcm"))) as wanted:
        assert slide.shape == wanted.dimensions[::-1]
        region = np.asarray(wanted.read_region((500, 700), 0, (64, 48)))[..., :3]
        np.testing.assert_array_equal(slide.read(0, 700, 500, 48, 64), region)


@pytest.mark.parametrize("member", ["largest", "smallest"])
def test_any_file_of_a_dicom_slide_opens_it(real_data, member):
    files = sorted(
        (real_data / "slides" / "dicom-cmu-1-small-region").glob("*.dcm"), key=lambda f: f.stat().st_size
    )
    with open_slide(files[-1 if member == "largest" else 0]) as slide:
        assert slide.shape == (2967, 2220)


@pytest.mark.parametrize("name", [name for name in REAL if "dicom" not in name])
def test_truncated_slides_are_refused(real_data, tmp_path, name):
    """A slide that opens all the same has lost nothing that is read."""
    content = (real_data / "slides" / name).read_bytes()
    with open_slide(real_data / "slides" / name) as slide:
        wanted = [slide.read(index, 0, 0, 200, 200) for index in range(len(slide.levels))]
    path = tmp_path / name
    refused = 0
    for share in (0.0005, 0.3, 0.5, 0.9, 0.999):
        path.write_bytes(content[: int(len(content) * share)])
        try:
            with open_slide(path) as slide:
                for index, region in enumerate(wanted):
                    np.testing.assert_array_equal(slide.read(index, 0, 0, 200, 200), region)
        except SlideError:
            refused += 1
    assert refused >= 4
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(SlideError, match="truncated or damaged"):
        open_slide(path)


def test_flipped_bytes_never_raise_anything_else(real_data, tmp_path):
    content = (real_data / "slides" / "boxes-generic-pyramid.tiff").read_bytes()
    random = np.random.default_rng(5)
    path, opened, refused = tmp_path / "flipped.tiff", 0, 0
    for _ in range(60):
        spoilt = bytearray(content)
        for place in random.integers(0, len(content), 6):
            spoilt[place] = random.integers(256)
        path.write_bytes(spoilt)
        try:
            with open_slide(path) as slide:
                assert slide.read(0, 0, 0, 100, 100).shape == (100, 100, slide.channels)
            opened += 1
        except SlideError:
            refused += 1
    assert opened > 0 < refused


def test_a_subifd_pyramid_shows_all_its_levels(files):
    assert openslide.OpenSlide(files["ome-tiff-subifd"]).level_count == 1
    with open_slide(files["ome-tiff-subifd"]) as slide:
        assert slide.reader == "tifffile"
        assert len(slide.levels) == 3


def test_no_file_and_no_slide(tmp_path):
    with pytest.raises(SlideError, match="There is no slide at"):
        open_slide(tmp_path / "missing.svs")
    (tmp_path / "notes.svs").write_text("not a slide")
    with pytest.raises(SlideError, match="not a slide in a format"):
        open_slide(tmp_path / "notes.svs")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SlideError, match="holds no slide"):
        open_slide(tmp_path / "empty")
    zarr.create_group(tmp_path / "bare.zarr")
    with pytest.raises(SlideError, match="no OME-Zarr image"):
        open_slide(tmp_path / "bare.zarr")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 40)
    with pytest.raises(SlideError):
        open_slide(tmp_path / "cut.png")


@pytest.mark.parametrize(
    ("said", "bounds"),
    [
        ({"x": "10", "y": "20", "width": "30", "height": "40"}, (20, 10, 40, 30)),
        ({"x": "10", "y": "20", "width": "3000", "height": "4000"}, (20, 10, 480, 990)),
        ({"x": "1000", "y": "20", "width": "30", "height": "40"}, None),
        ({"x": "10", "y": "20", "width": "thirty", "height": "40"}, None),
        ({"x": "10", "y": "20"}, None),
        ({}, None),
    ],
)
def test_what_was_scanned_lies_on_the_slide(said, bounds):
    properties = {f"openslide.bounds-{name}": value for name, value in said.items()}
    assert _bounds(properties, (1000, 500)) == bounds
