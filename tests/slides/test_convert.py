"""Slides written by us: what OpenSlide and our readers find in them, and that a stopped job leaves nothing behind."""

from __future__ import annotations

import threading

import numpy as np
import openslide
import pytest
import tifffile
import zarr
from pydantic import ValidationError

from napari_kdseg.errors import ConfigurationError, InTheWayError, OutputError, SlideError
from napari_kdseg.files import file_aside
from napari_kdseg.jobs import Control, JobCancelled, Message, Step
from napari_kdseg.slides import open_annotation, open_slide
from napari_kdseg.slides.pixels import tiles
from napari_kdseg.slides.pixels.resample import halve
from napari_kdseg.slides.writing import convert as convert_module
from napari_kdseg.slides.writing.convert import ConvertConfig, convert
from napari_kdseg.slides.writing.synthesise import SynthConfig, synthesise

WIDTH, HEIGHT, MPP = 1101, 843, 0.5
LOOK = {"width": WIDTH, "height": HEIGHT, "seed": 4, "mpp": MPP}
ADDRESS = f"synthetic:{WIDTH}x{HEIGHT}?seed=4&mpp={MPP}"
NAMES = ("a.svs", "a.ome.tif", "a.tif", "a.ome.zarr", "old.ome.zarr")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The same synthetic slide in every format, with two masks each."""
    folder = tmp_path_factory.mktemp("synth")
    made = {}
    for name in NAMES:
        config = SynthConfig(
            output=folder / name.partition(".")[0] / name.replace("old", "a"),
            masks=("gland", "tissue"),
            ome_zarr="0.4" if name.startswith("old") else "0.5",
            overwrite=True,  # the TIFFs of different formats share their masks
            **LOOK,
        )
        made[name] = synthesise(config, lambda event: None, Control())
    return made


@pytest.fixture(scope="module")
def truth():
    with open_slide(ADDRESS) as slide:
        yield slide


def write(slide, output, emit=lambda event: None, control=None, **options):
    return convert(ConvertConfig(slide=str(slide), output=output, **options), emit, control or Control())


@pytest.mark.parametrize("name", NAMES)
def test_a_synthetic_slide_is_read_back(written, truth, name):
    with open_slide(written[name].slide.output) as slide:
        assert slide.shape == truth.shape
        assert slide.mpp == pytest.approx(truth.mpp, rel=1e-6)
        assert slide.brightfield
        stored = len(slide.metadata.levels)
        assert [level.shape for level in slide.metadata.levels] == list(written[name].slide.shapes)
        assert max(slide.levels[stored - 1].shape) <= 1024
        for level in range(stored):
            read = slide.read(level, 0, 0, *slide.levels[level].shape).astype(int)
            exact = truth.read_scaled(slide.levels[level].downsample, 0, 0, *slide.levels[level].shape)
            assert np.abs(read - exact).mean() < (4 if level == 0 else 9)  # fine detail under JPEG
            # the colours are right, not only the brightness
            assert np.abs((read - exact).mean(axis=(0, 1))).max() < 1
        if name.endswith("zarr"):
            np.testing.assert_array_equal(
                slide.read(0, 0, 0, HEIGHT, WIDTH), truth.read(0, 0, 0, HEIGHT, WIDTH)
            )


@pytest.mark.parametrize("name", NAMES)
def test_its_masks_are_identical(written, truth, name):
    for mask, place in written[name].masks.items():
        read = open_annotation(place, truth)
        exact = open_annotation(f"{ADDRESS}&mask={mask}", truth)
        assert [level.shape for level in read.pyramid] == [level.shape for level in exact.pyramid]
        for one, other in zip(read.levels, exact.levels, strict=True):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
        if name.endswith("zarr"):
            assert read.classes == exact.classes


def test_openslide_takes_the_svs_for_one_of_aperio(written, truth):
    with openslide.OpenSlide(written["a.svs"].slide.output) as svs:
        assert svs.properties["openslide.vendor"] == "aperio"
        assert float(svs.properties["openslide.mpp-x"]) == MPP
        assert float(svs.properties["openslide.objective-power"]) == 20
        assert svs.dimensions == (WIDTH, HEIGHT)
        assert svs.level_downsamples == pytest.approx((1, 4), rel=1e-2)
        assert set(svs.associated_images) == {"thumbnail", "label", "macro"}
        region = np.asarray(svs.read_region((0, 0), 0, svs.dimensions).convert("RGB")).astype(int)
    exact = truth.read(0, 0, 0, HEIGHT, WIDTH)
    assert np.abs(region - exact).mean() < 4
    assert np.abs((region - exact).mean(axis=(0, 1))).max() < 1


def test_jpeg_of_rgb_says_what_it_holds(written):
    for name in ("a.svs", "a.ome.tif", "a.tif"):
        with tifffile.TiffFile(written[name].slide.output) as tif:
            page = tif.pages[0]
            assert (page.photometric.name, page.compression.name) == ("YCBCR", "JPEG")
            assert page.tags["YCbCrSubSampling"].value == (2, 2)


def test_other_programs_find_scale_and_labels(written):
    with tifffile.TiffFile(written["a.ome.tif"].slide.output) as tif:
        assert len(tif.series[0].levels) == len(written["a.ome.tif"].slide.shapes)
        assert f'PhysicalSizeX="{MPP}"' in tif.ome_metadata
    for name, version in (("a.ome.zarr", 3), ("old.ome.zarr", 2)):
        group = zarr.open_group(written[name].slide.output, mode="r")
        assert group.metadata.zarr_format == version
        attributes = dict(group.attrs)["ome"] if version == 3 else dict(group.attrs)
        image = attributes["multiscales"][0]
        assert [axis["name"] for axis in image["axes"]] == ["c", "y", "x"]
        assert image["datasets"][1]["coordinateTransformations"][0]["scale"][1:] == pytest.approx(
            [1, 1], rel=0.01
        )
        assert group["0"].shape == (3, HEIGHT, WIDTH)
        labels = dict(group["labels"].attrs)
        assert (labels["ome"] if version == 3 else labels)["labels"] == ["gland", "tissue"]


def test_a_slide_without_levels_gets_them(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (700, 901, 3), np.uint8)
    tifffile.imwrite(tmp_path / "flat.tif", pixels, photometric="rgb", tile=(240, 240))
    for name in ("a.ome.zarr", "b.tif"):
        write(tmp_path / "flat.tif", tmp_path / name, compression="none", tile=128, mpp=0.5)
        with open_slide(tmp_path / name) as slide:
            assert slide.mpp == pytest.approx((0.5, 0.5))
            expected = pixels
            for level in slide.metadata.levels:
                index = slide.metadata.levels.index(level)
                np.testing.assert_array_equal(slide.read(index, 0, 0, *level.shape), expected)
                expected = halve(expected)
            assert index == 2
    four = write(tmp_path / "flat.tif", tmp_path / "c.svs", tile=64, step=4, quality=95)
    assert four.shapes == ((700, 901), (175, 226), (44, 57))
    with open_slide(tmp_path / "c.svs") as slide:
        coarse = slide.read(2, 0, 0, 44, 57).astype(int)
        assert np.abs(coarse - halve(halve(halve(halve(pixels))))).mean() < 6


def test_one_enormous_level_is_what_conversion_is_for(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 255, (1200, 1500, 3), np.uint8)
    tifffile.imwrite(tmp_path / "flat.tif", pixels, photometric="rgb", tile=(240, 240))
    for module in (tiles, convert_module):
        monkeypatch.setattr(module, "MAX_COMPUTED_PIXELS", 10**6)
    monkeypatch.setattr(tiles, "COARSEST_SIDE", 512)
    with pytest.raises(SlideError, match="kdseg convert"):
        open_slide(tmp_path / "flat.tif")
    write(tmp_path / "flat.tif", tmp_path / "a.svs", quality=95)
    with open_slide(tmp_path / "a.svs") as slide:
        assert slide.shape == (1200, 1500)
        thumbnail = slide.read_associated("thumbnail").astype(int)
    assert thumbnail.shape == (600, 750, 3)
    assert np.abs(thumbnail - halve(pixels)).mean() < 25  # noise suffers under JPEG


def test_a_real_slide_keeps_scale_and_profile(real_data, tmp_path):
    slides = real_data / "slides"
    from_dicom = slides / "dicom-cmu-1-small-region"
    for name, options in (
        ("a.ome.tif", {"compression": "deflate"}),
        ("a.tif", {"compression": "lzw"}),
        ("a.svs", {}),
        ("a.ome.zarr", {}),
    ):
        said = []
        write(from_dicom, tmp_path / name, said.append, **options)
        assert any("label" in event.text for event in said if isinstance(event, Message))
        with open_slide(from_dicom) as source, open_slide(tmp_path / name) as slide:
            assert slide.mpp == pytest.approx(source.mpp, rel=1e-4)
            assert slide.icc == source.icc
            assert not {"label", "macro"} & set(slide.associated)
            one, other = (each.read(0, 700, 500, 900, 800).astype(int) for each in (source, slide))
            if name == "a.svs":
                assert np.abs(one - other).mean() < 5
            else:
                np.testing.assert_array_equal(one, other)


def test_channels_that_are_no_colours(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 4000, (4, 300, 410), np.uint16)
    source = tmp_path / "source.ome.tif"
    names = {
        "Channel": {"Name": ["DAPI", "A", "B", "C"]},
        "PhysicalSizeX": 0.5,
        "PhysicalSizeY": 0.5,
        "axes": "CYX",
    }
    tifffile.imwrite(source, pixels, tile=(128, 128), metadata=names, photometric="minisblack")
    for name in ("out.ome.tif", "out.ome.zarr"):
        write(source, tmp_path / name, tile=64)
        with open_slide(tmp_path / name) as slide:
            assert slide.channel_names == ("DAPI", "A", "B", "C")
            assert len(slide.metadata.levels) == 3
            np.testing.assert_array_equal(np.moveaxis(slide.read(0, 0, 0, 300, 410), 2, 0), pixels)
            expected = halve(np.moveaxis(pixels, 0, 2))
            np.testing.assert_array_equal(slide.read(1, 0, 0, 150, 205), expected)
    with pytest.raises(OutputError, match=r"\.ome\.tif"):
        write(source, tmp_path / "out.svs")
    with pytest.raises(OutputError, match="8 bits"):
        write(source, tmp_path / "other.ome.tif", compression="jpeg")


@pytest.mark.parametrize("name", ["a.svs", "a.ome.zarr"])
def test_a_stopped_job_leaves_nothing(tmp_path, name):
    control = Control()

    def stop(event):
        if isinstance(event, Step) and event.done > event.total // 2:
            control.cancel()

    before = set(threading.enumerate())
    for job, config in (
        (convert, ConvertConfig(slide=ADDRESS, output=tmp_path / name, tile=128)),
        (synthesise, SynthConfig(output=tmp_path / name, tile=128, **LOOK)),
    ):
        control = Control()
        with pytest.raises(JobCancelled):
            job(config, stop, control)
        assert not list(tmp_path.iterdir())
    left = [thread.name for thread in set(threading.enumerate()) - before if "read" in thread.name]
    assert not left


def test_what_is_there_stays_unless_it_may_go(tmp_path):
    for name in ("a.tif", "a.ome.zarr"):
        place = tmp_path / name
        write("synthetic:300x200?seed=1", place)
        with pytest.raises(InTheWayError, match="--overwrite"):
            write("synthetic:300x201?seed=1", place)
        write("synthetic:300x201?seed=1", place, overwrite=True)
        with open_slide(place) as slide:
            assert slide.shape == (201, 300)
        with pytest.raises(OutputError, match="over itself"):
            write(place, place, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ome.zarr", "a.tif"]


def test_settings_that_make_no_sense(tmp_path):
    with pytest.raises(ConfigurationError, match=r"\.svs"):
        ConvertConfig(slide="x", output=tmp_path / "a.png")
    with pytest.raises(ValidationError, match="zstd"):
        ConvertConfig(slide="x", output=tmp_path / "a.zarr", compression="jpeg")
    with pytest.raises(ValidationError, match="16"):
        ConvertConfig(slide="x", output=tmp_path / "a.tif", tile=100)
    with pytest.raises(ValidationError, match="once"):
        SynthConfig(output=tmp_path / "a.tif", masks=("gland", "gland"))


def test_a_file_is_whole_or_not_there(tmp_path):
    def half():
        with file_aside(tmp_path / "a" / "x") as part:
            part.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert list((tmp_path / "a").iterdir()) == []
