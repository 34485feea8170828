"""What the numbers of a file mean: decided by what it says, asked where it says nothing, overruled by a person."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.jobs import Control
from napari_kdseg.slides import SlideError, describe_in_full, open_slide
from napari_kdseg.slides.address import Asked
from napari_kdseg.slides.readers.meaning.deciding import decide
from napari_kdseg.slides.readers.meaning.stored import Stored
from napari_kdseg.slides.sidecar import keep_reading
from napari_kdseg.slides.writing.config import ConvertConfig
from napari_kdseg.slides.writing.convert import convert

SHORT, LONG = 3, 4


@pytest.fixture
def awkward(real_data):
    """Open an awkward file, if it is there."""

    def at(name: str):
        path = real_data / "awkward" / name
        if not path.exists():
            pytest.skip(f"there is no {path}")
        return path

    return at


@pytest.fixture(scope="module")
def bright() -> np.ndarray:
    """12 bits of a bright picture in colours, white being 4095."""
    values = np.random.default_rng(4).integers(2500, 4096, (48, 64, 3)).astype(np.uint16)
    values[:2] = 4095
    return values


def whole(slide) -> np.ndarray:
    return slide.read(0, 0, 0, *slide.shape)


def rgb(path, pixels, **tags) -> str:
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(16, 16), metadata=None, **tags)
    return str(path)


# -- examples ------------------------------------------------------------------------------------------------------


def test_he_in_three_grey_pages(awkward):
    path = awkward("he_as_three_grey_pages_ome_tiff/slide.ome.tif")
    with open_slide(path) as slide:
        assert slide.brightfield
        assert slide.channel_names == ("red", "green", "blue")
        assert "3 channels without names taken for red, green and blue" in slide.read_as
        np.testing.assert_array_equal(whole(slide), np.moveaxis(tifffile.imread(path), 0, -1))
    with open_slide(f"{path}?as=channels") as slide:
        assert not slide.brightfield
        assert slide.channel_names == ("channel 1", "channel 2", "channel 3")


def test_fluorescence_with_names_is_no_picture_in_colours(awkward):
    path = awkward("ome_tiff_channels_in_separate_files/deflate_C0.ome.tif")
    with open_slide(path) as slide:
        assert not slide.brightfield
        assert slide.metadata.kind == "channels"
    with open_slide(f"{path}?as=rgb") as slide:
        assert slide.brightfield


def test_rgb_of_16_bits(awkward, tmp_path):
    path = awkward("rgb_16_bit/slide.tif")
    wanted = np.rint(tifffile.imread(path) / 257).astype(np.uint8)
    with open_slide(path) as slide:
        assert slide.brightfield
        assert slide.read_as == "RGB, 16 bit / 257"
        np.testing.assert_array_equal(whole(slide), wanted)
        high_byte = np.asarray(Image.open(path))  # as Pillow reads it: at most 1 less
        assert np.abs(whole(slide).astype(int) - high_byte).max() <= 1
    convert(
        ConvertConfig(slide=str(path), output=tmp_path / "o.ome.tif", compression="deflate"), print, Control()
    )
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "o.ome.tif"), wanted)


def test_associated_alpha_and_a_fourth_sample_that_is_none(awkward):
    path = awkward("tiff_alpha_and_extra_samples/associated_alpha.tif")
    stored = tifffile.imread(path).astype(int)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(whole(slide), np.minimum(stored[..., :3] + 255 - stored[..., 3:], 255))
        assert np.abs(whole(slide)[10, 10].astype(int) - (245, 236, 244)).max() <= 1  # as its README has it
    path = awkward("tiff_alpha_and_extra_samples/fourth_sample_no_alpha.tif")
    with open_slide(path) as slide:
        np.testing.assert_array_equal(whole(slide), tifffile.imread(path)[..., :3])
        assert "1 further sample not said to be opacity, left out" in slide.read_as


def test_cmyk(awkward):
    path = awkward("tiff_photometric_cmyk/cmyk.tif")
    with open_slide(path) as slide, Image.open(path) as image:
        assert slide.brightfield
        np.testing.assert_array_equal(whole(slide), np.asarray(image.convert("RGB")))
    with open_slide(f"{path}?as=channels") as slide:
        np.testing.assert_array_equal(whole(slide), tifffile.imread(path))


# -- which value is white ------------------------------------------------------------------------------------------


def test_what_the_file_says_is_white(tmp_path, bright):
    wanted = np.rint(bright / 4095 * 255).astype(np.uint8)
    said = rgb(tmp_path / "max.tif", bright, extratags=[(281, SHORT, 3, (4095,) * 3, True)])
    bits = tmp_path / "bits.ome.tif"
    metadata = {"axes": "YXS", "SignificantBits": 12}
    tifffile.imwrite(bits, bright, photometric="rgb", tile=(16, 16), metadata=metadata)
    for path in (said, bits):
        with open_slide(path) as slide:
            np.testing.assert_array_equal(whole(slide), wanted)
            assert slide.read_as == "RGB, 16 bit, 4095 is white (the file says so)"
            assert not slide.metadata.doubt


@pytest.mark.parametrize(
    "extratags", [[], [(281, SHORT, 3, (3999,) * 3, True)], [(281, SHORT, 3, (1023,) * 3, True)]]
)
def test_where_the_file_says_nothing_it_is_asked(tmp_path, bright, extratags):
    """Also where it gives the largest value of the picture, or one that is exceeded."""
    path = rgb(tmp_path / "a.tif", bright, extratags=extratags)
    with open_slide(path) as slide:
        assert "the largest seen is 4095, so it may be 4095" in slide.metadata.doubt
        assert dict(describe_in_full(slide))["Read as"] == f"{slide.read_as}. {slide.mend}"
        assert slide.read_as == f"RGB, 16 bit; {slide.metadata.doubt}"
        np.testing.assert_array_equal(whole(slide), np.rint(bright / 4095 * 255))  # it is shown so meanwhile
        with pytest.raises(
            SlideError, match=r"cannot be used yet: .* SLIDE --white 4095, with \?white=4095 behind"
        ):
            slide.check_decided()
    with pytest.raises(SlideError, match="cannot be used yet"):
        convert(ConvertConfig(slide=path, output=tmp_path / "o.ome.tif"), print, Control())
    with open_slide(f"{path}?white=16383") as slide:
        slide.check_decided()
        assert slide.read_as.startswith("RGB, 16 bit, 16383 is white (you said so)")
        np.testing.assert_array_equal(whole(slide), np.rint(bright / 16383 * 255))


def test_floating_point_is_asked(tmp_path, bright):
    pixels = (bright / 4095).astype(np.float32)
    path = rgb(tmp_path / "a.tif", pixels)
    with open_slide(path) as slide:
        assert "it may be 1" in slide.metadata.doubt
    with open_slide(f"{path}?white=1") as slide:
        np.testing.assert_array_equal(whole(slide), np.rint(pixels.astype(float) * 255))
    said = rgb(tmp_path / "b.tif", pixels, extratags=[(341, 11, 3, (1.0, 1.0, 1.0), True)])
    with open_slide(said) as slide:
        np.testing.assert_array_equal(whole(slide), np.rint(pixels.astype(float) * 255))


# -- what is not a picture in colours ------------------------------------------------------------------------------


def _zarr(path, pixels, labels=()):
    group = zarr.create_group(path, zarr_format=2)
    group.create_array("0", shape=pixels.shape, chunks=pixels.shape, dtype=pixels.dtype)[:] = pixels
    axes = [{"name": name} for name in "yxc"]
    group.attrs.update(
        multiscales=[{"version": "0.4", "axes": axes, "datasets": [{"path": "0"}]}],
        omero={"channels": [{"label": label} for label in labels]},
    )
    return path


@pytest.mark.parametrize(
    ("labels", "scale", "kind", "brightfield"),
    [
        ((), 1, "rgb", True),
        (("Channel 0", "Channel 1", "Channel 2"), 1, "rgb", True),
        (("Channel:0:0", "Channel:0:1", "Channel:0:2"), 1, "rgb", True),
        (("R", "G", "B"), 1, "rgb", True),
        ((), 0.1, "rgb", False),  # a dark ground
        (("DAPI", "FITC", "TRITC"), 1, "channels", False),
        (("DAPI", "", ""), 0.1, "channels", False),
    ],
)
def test_three_channels_of_8_bits(tmp_path, bright, labels, scale, kind, brightfield):
    pixels = (bright / 16 * scale).astype(np.uint8)
    with open_slide(_zarr(tmp_path / "a.zarr", pixels, labels)) as slide:
        assert (slide.metadata.kind, slide.brightfield) == (kind, brightfield)
        np.testing.assert_array_equal(whole(slide), pixels)
        offered = "if it is a picture in colours, read it as RGB" in slide.read_as
        assert offered == (kind == "channels" and scale == 1)
        assert ("on a dark ground" in slide.read_as) == (kind == "rgb" and not brightfield)


def test_three_channels_of_16_bits_are_offered_as_rgb(tmp_path, bright):
    path = _zarr(tmp_path / "a.zarr", bright * 16)
    with open_slide(path) as slide:
        assert slide.dtype == np.uint16
        assert "read it as RGB (?as=rgb)" in slide.read_as
    with open_slide(f"{path}?as=rgb") as slide:
        np.testing.assert_array_equal(whole(slide), np.rint(bright * 16.0 / 257))


def test_three_pages_are_offered_as_rgb(tmp_path, bright):
    pixels, path = (bright >> 4).astype(np.uint8), tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        for index in range(3):
            tif.write(
                pixels[..., index], photometric="minisblack", tile=(16, 16), metadata=None, contiguous=False
            )
    with open_slide(path) as slide:
        assert slide.channels == 1
        assert "if its three pages are red, green and blue" in slide.read_as
    with open_slide(f"{path}?as=rgb") as slide:
        np.testing.assert_array_equal(whole(slide), pixels)


def test_rgb_on_a_dark_ground_is_fluorescence(tmp_path, bright):
    with open_slide(rgb(tmp_path / "a.tif", (bright >> 8).astype(np.uint8))) as slide:
        assert not slide.brightfield
        assert slide.read_as.startswith("RGB, 8 bit; on a dark ground, so its 3 channels are shown")


# -- what is refused by name ---------------------------------------------------------------------------------------


def test_colours_that_are_not_read_are_named(tmp_path, write_tiff, bright):
    pixels = (bright >> 4).astype(np.uint8)
    for photometric, name in ((9, "ICCLab"), (32845, "LogLuv"), (12345, "photometric 12345")):
        path = write_tiff(tmp_path / "a.tif", pixels, photometric=photometric, bits=8)
        with open_slide(path) as slide:
            assert slide.metadata.kind == "channels"
            assert f"its colours are {name}, which is not read here" in slide.read_as
            with pytest.raises(SlideError, match=name):
                slide.check_decided()
        with open_slide(f"{path}?as=channels") as slide:
            slide.check_decided()
            np.testing.assert_array_equal(whole(slide), pixels)
    path = write_tiff(tmp_path / "a.tif", pixels, photometric=6, bits=8, tags={530: (SHORT, (2, 2))})
    with pytest.raises(SlideError, match="YCbCrSubSampling"):
        open_slide(path)
    path = write_tiff(tmp_path / "a.tif", bright[..., :1], photometric=1, bits=16)
    with open_slide(path) as slide:
        assert slide.read_as == "grey, 16 bit"


# -- a person overrules --------------------------------------------------------------------------------------------


def test_as_grey(tmp_path, bright):
    pixels = (bright >> 4).astype(np.uint8)
    path = rgb(tmp_path / "a.tif", pixels)
    with open_slide(f"{path}?as=grey") as slide:
        np.testing.assert_array_equal(whole(slide)[..., 0], np.asarray(Image.fromarray(pixels).convert("L")))
        assert slide.channel_names == ("grey",)
    Image.fromarray(pixels).convert("L").save(tmp_path / "b.png")
    with open_slide(f"{tmp_path / 'b.png'}?as=rgb") as slide:
        assert slide.brightfield
        np.testing.assert_array_equal(whole(slide)[..., 1], np.asarray(Image.fromarray(pixels).convert("L")))


def test_two_channels_make_no_colours():
    stored = Stored(2, np.dtype(np.uint8))
    with pytest.raises(SlideError, match="has 2 channels; a picture in colours has 3"):
        decide(stored, Asked(kind="rgb"), list)


def test_slides_of_openslide_too(real_data):
    path = real_data / "slides" / "CMU-1-Small-Region.svs"
    with open_slide(path) as slide, open_slide(f"{path}?as=grey") as grey:
        box = (0, 700, 900, 40, 50)
        wanted = np.asarray(Image.fromarray(slide.read(*box)).convert("L"))
        np.testing.assert_array_equal(grey.read(*box)[..., 0], wanted)
        assert grey.identity() == slide.identity()


def test_a_choice_is_kept_with_the_slide(tmp_path, bright):
    path = rgb(tmp_path / "a.tif", bright)
    with open_slide(path) as slide:
        keep_reading(slide, "rgb", 4095.0)
    with open_slide(path) as slide:
        assert slide.asked == Asked(kind="rgb", white=4095.0)
        assert slide.brightfield
        slide.check_decided()
        np.testing.assert_array_equal(whole(slide), np.rint(bright / 4095 * 255))
        again = pickle.loads(pickle.dumps(slide))
        assert again.asked == slide.asked
        again.close()
    with open_slide(f"{path}?as=channels") as slide:  # what is asked now goes before
        np.testing.assert_array_equal(whole(slide), bright)
    with open_slide(path) as slide:
        keep_reading(slide, None, None)
    with open_slide(path) as slide:
        assert slide.metadata.doubt


def test_masks_are_numbers_whatever_their_palette(tmp_path, bright):
    """A mask with a palette is its indices, and lies as its picture does."""
    from napari_kdseg.slides import open_annotation

    path = rgb(tmp_path / "a.tif", (bright >> 4).astype(np.uint8))
    classes = np.random.default_rng(0).integers(0, 4, bright.shape[:2]).astype(np.uint8)
    table = np.random.default_rng(1).integers(0, 65535, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "m.tif", classes, photometric="palette", colormap=table, metadata=None)
    with open_slide(path) as slide:
        found = open_annotation(tmp_path / "m.tif", slide)
        np.testing.assert_array_equal(found.read_scaled(1.0, 0, 0, *slide.shape), classes)


def test_a_network_is_refused_what_has_to_be_asked(tmp_path, bright):
    from napari_kdseg.inference.network.fit import check_network_fits, choose_resolution
    from napari_kdseg.networks import NetworkSpec

    spec = NetworkSpec(architecture="enet", classes=("background", "gland"))
    path = rgb(tmp_path / "a.tif", bright)
    with open_slide(path) as slide, pytest.raises(SlideError, match="cannot be used yet"):
        check_network_fits(slide, spec, tmp_path)
    with open_slide(f"{path}?white=4095", mpp=19.0) as slide:
        check_network_fits(slide, spec, tmp_path)
        with pytest.raises(ConfigurationError, match="would be enlarged 38-fold"):
            choose_resolution(slide, None, 0.5)


def test_a_prediction_does_not_go_on_where_the_numbers_mean_something_else(tmp_path, bright):
    """What a person said decides what networks see, so it is in the record of a mask."""
    from napari_kdseg.inference.running.preparation import _reading

    path = rgb(tmp_path / "a.tif", bright)
    with open_slide(f"{path}?white=4095") as slide:
        assert _reading(slide) == {"reading": {"white": 4095.0}}
    with open_slide(f"{path}?white=16383&as=rgb") as slide:
        assert _reading(slide) == {"reading": {"as": "rgb", "white": 16383.0}}
    with open_slide(path) as slide:
        assert _reading(slide) == {}
