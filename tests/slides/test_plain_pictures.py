"""Plain pictures, and pictures that lie otherwise than they are stored, against Pillow."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageOps

from napari_kdseg.slides import open_slide

HEIGHT, WIDTH = 40, 56
LAYOUTS = ("tiles", "strips", "one strip")
SHORT, RATIONAL = 3, 5


# -- PNG and JPEG --------------------------------------------------------------------------------------------------


def _png(mode: str, bits: int) -> bytes:
    random = np.random.default_rng(2)
    samples = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "P": 1}[mode]
    pixels = random.integers(0, 2**bits, (HEIGHT, WIDTH, samples)).astype(
        np.uint16 if bits == 16 else np.uint8
    )
    if mode == "P":
        image = Image.fromarray(pixels[..., 0], "P")
        colours = (
            random.integers(0, 256, 3 * 2**bits)
            if mode == "P"
            else np.repeat(np.arange(2**bits), 3) * 255 // (2**bits - 1)
        )
        image.putpalette([int(value) for value in colours])
        stream = io.BytesIO()
        image.save(stream, "PNG", bits=bits)
        return stream.getvalue()
    return imagecodecs.png_encode(pixels if samples > 1 else pixels[..., 0])


@pytest.mark.parametrize(
    ("mode", "bits"),
    [*[("P", bits) for bits in (1, 2, 4, 8)], *[(m, b) for m in ("L", "LA", "RGB", "RGBA") for b in (8, 16)]],
)
def test_png(tmp_path, mode, bits):
    path = tmp_path / "a.png"
    path.write_bytes(_png(mode, bits))
    image = Image.open(path)
    with open_slide(path) as slide:
        got = slide.read(0, 0, 0, *slide.shape)
    if mode == "L":
        np.testing.assert_array_equal(got[..., 0], np.asarray(image))
        return
    if bits == 16:
        raw = imagecodecs.png_decode(path.read_bytes()).astype(float) / 65535
    else:
        raw = np.asarray(image.convert({"P": "RGB"}.get(mode, mode))).astype(float) / 255
    alpha = raw[..., -1:] if mode.endswith("A") else 1.0
    colours = raw[..., :-1] if mode.endswith("A") else raw
    np.testing.assert_array_equal(got, np.rint(255 * (colours * alpha + 1 - alpha)).astype(np.uint8))


def test_a_png_of_one_bit(tmp_path):
    pixels = np.random.default_rng(2).random((HEIGHT, WIDTH)) < 0.5
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with open_slide(tmp_path / "a.png") as slide:
        assert slide.metadata.kind == "grey"
        np.testing.assert_array_equal(slide.read(0, 0, 0, *slide.shape)[..., 0], pixels * 255)


def test_the_numbers_of_a_picture_as_they_are_stored(tmp_path):
    """Indices of a palette, inks, all 16 bits."""
    path = tmp_path / "a.png"
    path.write_bytes(_png("P", 4))
    with open_slide(path) as slide:
        assert slide.read_as == "RGB from a palette, 8 bit"
    with open_slide(f"{path}?as=channels") as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 0, *slide.shape)[..., 0], np.asarray(Image.open(path)))
    path.write_bytes(_png("RGB", 16))
    with open_slide(f"{path}?as=channels") as slide:
        wanted = imagecodecs.png_decode(path.read_bytes())
        np.testing.assert_array_equal(slide.read(0, 0, 0, *slide.shape), wanted)
    inks = np.random.default_rng(6).integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
    Image.fromarray(inks, "CMYK").save(tmp_path / "a.jpg")
    with open_slide(f"{tmp_path / 'a.jpg'}?as=channels") as slide:
        wanted = np.asarray(Image.open(tmp_path / "a.jpg"))
        np.testing.assert_array_equal(slide.read(0, 0, 0, *slide.shape), wanted)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG L", "JPEG RGB", "JPEG CMYK", "PNG RGB"])
def test_orientation_of_pictures(tmp_path, form, orientation):
    kind, mode = form.split()
    pixels = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{kind.lower()}"
    Image.fromarray(pixels).convert(mode).save(path, kind, exif=exif)
    wanted = ImageOps.exif_transpose(Image.open(path)).convert("L" if mode == "L" else "RGB")
    with open_slide(path) as slide:
        assert slide.metadata.orientation == (
            "" if orientation == 1 else f"turned upright, as its EXIF Orientation ({orientation}) says"
        )
        got = slide.read(0, 0, 0, *slide.shape)
        np.testing.assert_array_equal(got[..., 0] if mode == "L" else got, np.asarray(wanted))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_orientation_of_tiff(tmp_path, write_tiff, layout, orientation):
    """Pillow turns a TIFF when it loads it; tiles of 16 x 32 px are put together anew."""
    pixels = np.random.default_rng(7).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    scale = {282: (RATIONAL, (40000, 1)), 283: (RATIONAL, (20000, 1)), 296: (SHORT, (3,))}  # 0.25 and 0.5 um
    path = write_tiff(
        tmp_path / "a.tif",
        pixels,
        photometric=2,
        bits=8,
        layout=layout,
        tags={274: (SHORT, (orientation,)), **scale},
    )
    with open_slide(path) as slide, Image.open(path) as image:
        image.load()
        whole = slide.read(0, 0, 0, *slide.shape)
        np.testing.assert_array_equal(whole, np.asarray(image))
        np.testing.assert_array_equal(slide.read(0, 5, 9, 21, 17), whole[5:26, 9:26])
        assert slide.mpp == ((0.5, 0.25) if orientation < 5 else (0.25, 0.5))
        assert ("Orientation" in slide.metadata.orientation) == (orientation > 1)
