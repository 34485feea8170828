"""Every real slide, and OME-Zarr and OME-TIFF made of one: in the window at the right size, in the right colours."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import tifffile
import zarr

from napari_kdseg.slides import open_slide
from napari_kdseg.slides.pixels.resample import halve
from napari_kdseg.widgets import binding as layers
from napari_kdseg.widgets.binding import session_of

WAIT = 20_000
BLOCK = 24
"""Screen pixels over which colours are averaged, so that how levels are resampled does not matter."""

CASES = {
    "CMU-1-Small-Region.svs": ((2967, 2220), 0.499),
    "dicom-cmu-1-small-region": ((2967, 2220), 0.499),
    "TCGA-CR-7395-01A-01-TS1.svs": ((3567, 4443), None),
    "test3-TRITC-560.ndpi": ((4864, 3968), 0.2281750559),
    "boxes-generic-pyramid.tiff": ((250, 300), None),
    "XYC-coordinate-grid-jpeg.ome.tiff": ((512, 512), None),
    "made.ome.zarr": ((2967, 2220), 0.499),
    "made.ome.tif": ((2967, 2220), 0.499),
}


@pytest.fixture(scope="module")
def slides(real_data, tmp_path_factory):
    """A folder with copies of all slides (notes are kept beside them), and the two that are made."""
    folder = tmp_path_factory.mktemp("slides")
    shutil.copytree(real_data / "slides", folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
    with open_slide(folder / "CMU-1-Small-Region.svs") as slide:
        levels = [slide.read(0, 0, 0, *slide.shape)]
        mpp = slide.mpp[0]
    for _ in range(2):
        levels.append(halve(levels[-1]))
    _write_zarr(folder / "made.ome.zarr", levels, mpp)
    _write_tiff(folder / "made.ome.tif", levels, mpp)
    return folder


def _write_zarr(path, levels, mpp):
    group = zarr.create_group(path, zarr_format=3)
    datasets = []
    for index, level in enumerate(levels):
        data = np.moveaxis(level, 2, 0)
        array = group.create_array(str(index), shape=data.shape, chunks=(3, 512, 512), dtype="uint8")
        array[:] = data
        scale = [1.0, mpp * 2**index, mpp * 2**index]
        datasets.append(
            {"path": str(index), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        )
    space = {"type": "space", "unit": "micrometer"}
    axes = [{"name": "c", "type": "channel"}, {"name": "y", **space}, {"name": "x", **space}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}


def _write_tiff(path, levels, mpp):
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "zstd"}
    metadata = {"axes": "YXS", "PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(levels[0], subifds=len(levels) - 1, metadata=metadata, **options)
        for level in levels[1:]:
            tif.write(level, subfiletype=1, **options)


@pytest.mark.parametrize("name", CASES)
def test_size_and_colours(viewer, qtbot, slides, name):
    shape, mpp = CASES[name]
    session = session_of(viewer)
    session.open_slide(str(slides / name))
    qtbot.waitUntil(lambda: session.slide is not None, timeout=WAIT)
    slide = session.slide
    assert slide.shape == shape
    shown = [layer for layer in viewer.layers if layer.metadata.get(layers.ROLE_KEY) == "slide"]
    assert len(shown) == (1 if slide.brightfield else 3)
    unit = "pixel" if mpp is None else "micrometer"
    for layer in shown:
        assert [str(each) for each in layer.units] == [unit, unit]
        low, high = layer.extent.world
        np.testing.assert_allclose(
            high - low, (np.asarray(shape) - 1) * (mpp or 1.0), rtol=1e-6, equal_nan=False
        )
    viewer.canvas.overlays.scale_bar.visible = viewer.canvas.overlays.text.visible = False
    scale = mpp or 1.0
    middle = tuple(side / 2 * scale for side in shape)
    other = 0.5 if len(slide.levels) > 1 else 2.0  # drawing every other pixel of a grid shows another grid
    for zoom in (None, other / scale, 1.0 / scale):
        if zoom is not None:
            viewer.scene.camera.center, viewer.scene.camera.zoom = middle, zoom
        qtbot.waitUntil(lambda: difference(viewer, slide) < 5, timeout=WAIT)


def difference(viewer, slide) -> float:
    """Mean difference, in grey values, between the canvas and the slide where the canvas shows it."""
    picture = viewer.screenshot(canvas_only=True, flash=False)[..., :3]
    mpp = np.asarray(slide.mpp or (1.0, 1.0))
    zoom = viewer.scene.camera.zoom
    step = 1 / zoom / mpp  # level-0 pixels a screen pixel
    centre = np.asarray(viewer.scene.camera.center[-2:]) / mpp + 0.5
    top_left = centre - np.asarray(picture.shape[:2]) / 2 * step
    first = np.maximum(np.ceil(-top_left / step), 0).astype(int)
    last = np.minimum(
        np.floor((np.asarray(slide.shape) - top_left) / step), np.asarray(picture.shape[:2])
    ).astype(int)
    size = (last - first) // BLOCK * BLOCK
    there = np.round(top_left / step).astype(int) + first
    expected = slide.read_scaled(tuple(step), *there, *size)
    part = picture[first[0] : first[0] + size[0], first[1] : first[1] + size[1]]
    return float(np.abs(_blocks(part) - _blocks(expected)).mean())


def _blocks(pixels: np.ndarray) -> np.ndarray:
    height, width = (side // BLOCK for side in pixels.shape[:2])
    return pixels.reshape(height, BLOCK, width, BLOCK, 3).mean(axis=(1, 3))
