"""Every marker of a slide lies where it belongs: all readers, all levels, masks of other downsamples.

A slide of odd size carries round markers at known places. What is displayed is where napari puts it: the levels of a
pyramid are scaled by the ratio of their shapes, a mask by :func:`layer_transform`.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from scipy import ndimage

from napari_kdseg.slides import Slide, layer_transform, open_slide
from napari_kdseg.slides.readers.openslide_backend import OpenSlideBackend

HEIGHT, WIDTH, MPP = 2403, 3209, 0.5
FACTORS = (1.0, 2.0, 2.98, 4.0001, 8.03)
"""Of the levels; sizes are rounded down, so that the true downsamples are others still."""
RADIUS = 30
MARKERS = [(101.0, 140.0), (1203.5, 1601.25), (2300.0, 3101.0), (90.0, 3110.75), (2296.5, 77.0)]
"""Centres (y, x) in level-0 pixels, counted from the middle of the first pixel."""


def drawn(shape: tuple[int, int]) -> np.ndarray:
    """Return the slide at any size, smooth markers drawn where they are, not resampled from another level."""
    factors = [whole / side for whole, side in zip((HEIGHT, WIDTH), shape, strict=True)]
    rows, columns = ((np.arange(side) + 0.5) * f - 0.5 for side, f in zip(shape, factors, strict=True))
    dark = np.zeros(shape)
    for y, x in MARKERS:
        distance = np.hypot(rows[:, None] - y, columns[None, :] - x)
        dark += np.clip((RADIUS - distance) / 4 + 0.5, 0, 1)
    return np.repeat(np.uint8(240 - 200 * dark)[..., None], 3, axis=2)


@pytest.fixture(scope="module")
def levels() -> list[np.ndarray]:
    return [drawn((int(HEIGHT / factor), int(WIDTH / factor))) for factor in FACTORS]


def write_pages(path: Path, levels: list[np.ndarray]) -> Path:
    with tifffile.TiffWriter(path) as tif:
        for index, level in enumerate(levels):
            tif.write(
                level,
                tile=(240, 240),
                photometric="rgb",
                compression="zlib",
                subfiletype=int(index > 0),
                metadata=None,
            )
    return path


def write_subifds(path: Path, levels: list[np.ndarray]) -> Path:
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "lzw"}
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(levels[0], subifds=len(levels) - 1, metadata={"axes": "YXS"}, **options)
        for level in levels[1:]:
            tif.write(level, subfiletype=1, **options)
    return path


def write_aperio(path: Path, levels: list[np.ndarray]) -> Path:
    text = f"Aperio Image Library v11.2.1\r\n{WIDTH}x{HEIGHT}|AppMag = 20|MPP = {MPP}"
    with tifffile.TiffWriter(path) as tif:
        for level in levels:
            tif.write(
                level,
                tile=(240, 240),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 95, "outcolorspace": "ycbcr"},
                subsampling=(2, 2),
                description=text,
                metadata=None,
                software=False,
            )
    return path


def write_zarr(path: Path, levels: list[np.ndarray], version: str) -> Path:
    group = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for index, level in enumerate(levels):
        group.create_array(str(index), shape=level.shape, chunks=(256, 256, 3), dtype="uint8")[:] = level
        scale = [MPP * HEIGHT / level.shape[0], MPP * WIDTH / level.shape[1], 1.0]
        transform = {"type": "scale", "scale": scale}
        datasets.append({"path": str(index), "coordinateTransformations": [transform]})
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    image = {"axes": [*axes, {"name": "c", "type": "channel"}], "datasets": datasets}
    if version == "0.4":
        group.attrs["multiscales"] = [image | {"version": "0.4"}]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    return path


@pytest.fixture(scope="module")
def slides(tmp_path_factory, levels):
    folder = tmp_path_factory.mktemp("alignment")
    pages, aperio = write_pages(folder / "pages.tif", levels), write_aperio(folder / "aperio.svs", levels)
    made = {
        "tiff pages": open_slide(pages),
        "ome-tiff subifds": open_slide(write_subifds(folder / "subifds.ome.tif", levels)),
        "aperio, direct": open_slide(aperio),
        "aperio, openslide": Slide(OpenSlideBackend(aperio), aperio),
        "generic tiff, openslide": Slide(OpenSlideBackend(pages), pages, mpp=MPP),
        "ome-zarr 0.4": open_slide(write_zarr(folder / "v4.zarr", levels, "0.4")),
        "ome-zarr 0.5": open_slide(write_zarr(folder / "v5.zarr", levels, "0.5")),
    }
    for slide in made.values():
        slide.mpp = MPP
    yield made
    for slide in made.values():
        slide.close()


READERS = {
    "tiff pages": "tifffile",
    "ome-tiff subifds": "tifffile",
    "aperio, direct": "tifffile",
    "aperio, openslide": "openslide",
    "generic tiff, openslide": "openslide",
    "ome-zarr 0.4": "zarr",
    "ome-zarr 0.5": "zarr",
}


def found(pixels: np.ndarray, near: tuple[float, float], reach: tuple[float, float]) -> tuple[float, float]:
    """Return the centre of mass of the dark around a place, in pixels of this array."""
    (top, bottom), (left, right) = (
        (max(math.floor(place - way), 0), math.ceil(place + way) + 1)
        for place, way in zip(near, reach, strict=True)
    )
    part = 240.0 - pixels[top:bottom, left:right, 0]
    part[part < 20] = 0
    y, x = ndimage.center_of_mass(part)
    return top + y, left + x


@pytest.mark.parametrize("name", READERS)
def test_markers_of_every_level_lie_within_half_a_displayed_pixel(name, slides):
    slide = slides[name]
    assert slide.reader == READERS[name]
    assert [level.shape for level in slide.levels[: len(FACTORS)]] == [
        (int(HEIGHT / factor), int(WIDTH / factor)) for factor in FACTORS
    ]
    for index, (level, layer) in enumerate(zip(slide.levels, slide.as_layers(), strict=True)):
        pixels, (scale, translate) = np.asarray(layer), layer_transform(level.downsample, slide.mpp)
        for marker in MARKERS:
            near = [(m * MPP - t) / s for m, s, t in zip(marker, scale, translate, strict=True)]
            place = found(pixels, near, [1.6 * RADIUS / f + 2 for f in level.downsample])
            for at, middle, s, t in zip(place, marker, scale, translate, strict=True):
                assert abs(at * s + t - middle * MPP) < 0.5 * s, (index, marker)


@pytest.mark.parametrize("downsample", [1.0, 2.0, 2.98, 4.0001, 5.5, 16.0])
@pytest.mark.parametrize("name", READERS)
def test_masks_of_other_downsamples_lie_on_the_markers(name, slides, downsample):
    """A mask of any downsample, computed from the slide, has its markers on those of level 0."""
    slide = slides[name]
    height, width = math.ceil(HEIGHT / downsample), math.ceil(WIDTH / downsample)
    pixels = slide.read_scaled(downsample, 0, 0, height, width)
    scale, translate = layer_transform(downsample, slide.mpp)
    for marker in MARKERS:
        near = [(m * MPP - t) / s for m, s, t in zip(marker, scale, translate, strict=True)]
        place = found(pixels, near, [1.6 * RADIUS / downsample + 2] * 2)
        for at, middle, s, t in zip(place, marker, scale, translate, strict=True):
            assert abs(at * s + t - middle * MPP) < 0.5 * s, marker


def test_napari_puts_the_levels_on_each_other(slides):
    """napari scales level k by the ratio of shapes: that agrees with ours to half a pixel of the displayed level."""
    layers = pytest.importorskip("napari.layers")
    slide = slides["tiff pages"]
    scale, translate = layer_transform(1.0, slide.mpp)
    layer = layers.Image(slide.as_layers(), multiscale=True, rgb=True, scale=scale, translate=translate)
    for index, level in enumerate(slide.levels):
        np.testing.assert_allclose(
            layer.downsample_factors[index][:2], level.downsample, rtol=1e-6, equal_nan=False
        )
        ours, shift = layer_transform(level.downsample, slide.mpp)
        for marker in MARKERS:
            pixel = [(m * MPP - t) / s for m, s, t in zip(marker, ours, shift, strict=True)]
            shown = np.multiply(pixel, layer.downsample_factors[index][:2]) * scale
            # napari takes pixel centres of every level to begin together: the drift is (f - 1) / 2 level-0 pixels
            assert np.all(np.abs(shown + shift - np.multiply(marker, MPP)) < 0.5 * np.array(ours))
