"""Masks opened by programs that are not ours: napari-ome-zarr and tifffile. They must lie on the slide."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_kdseg.jobs import Control
from napari_kdseg.masks import ExportConfig, MaskSpec, MaskStore, export_masks, open_masks, plan_tiles
from napari_kdseg.masks.tiling import mask_shape
from napari_kdseg.slides import layer_transform, open_slide

SPEC = MaskSpec("labels", "student", "class", ("light", "dark"), ((0, 0, 0), (230, 159, 0)))
TILE = 256


@pytest.fixture(
    params=["synthetic:1300x900?seed=3&mpp=0.5", "CMU-1-Small-Region.svs", "dicom-cmu-1-small-region"]
)
def address(request):
    """A slide without a window of its own, and two real ones where they lie."""
    if request.param.startswith("synthetic"):
        return request.param
    path = request.getfixturevalue("real_data") / "slides" / request.param
    if not path.exists():
        pytest.skip(f"the slide is not at {path}")
    return str(path)


def dark(slide, downsample, y, x, height, width):
    """What anybody can see on the slide: class 1 where it is dark."""
    return (slide.read_scaled(downsample, y, x, height, width).mean(axis=-1) < 190).astype(np.uint8)


@pytest.fixture(params=[(2.0, 2.0), (3.5, 3.5)], ids=["2", "3.5"])
def store(request, tmp_path, address):
    downsample = request.param
    with open_slide(address) as slide:
        shape = mask_shape(slide.shape, downsample)
        grid = {"shape": shape, "downsample": downsample, "tile": TILE, "made_by": {}}
        with MaskStore(tmp_path / "case.ome.zarr", slide).begin([SPEC], **grid) as writer:
            for tile in plan_tiles(shape, None, TILE, 0):
                writer.write_tile(tile, [dark(slide, downsample, tile.y, tile.x, tile.height, tile.width)])
            writer.finish(None)
    return tmp_path / "case.ome.zarr"


def test_napari_ome_zarr_shows_the_mask_on_the_slide(store, address):
    reader = pytest.importorskip("napari_ome_zarr", reason="pip install napari-ome-zarr to see what it reads")
    from napari.layers import Layer

    opened = reader.napari_get_reader(str(store))(str(store))
    (label,) = [Layer.create(*item) for item in opened if item[2] == "labels"]
    ours = open_masks(store)["student"]
    assert [level.shape for level in label.data] == [level.shape for level in ours.levels]
    for theirs, level in zip(label.data, ours.levels, strict=True):
        np.testing.assert_array_equal(np.asarray(theirs), np.asarray(level))
    assert [str(unit) for unit in label.units] == ["micrometer", "micrometer"]
    with open_slide(address) as slide:
        scale, translate = layer_transform(ours.downsample, slide.mpp)
        assert label.scale == pytest.approx(scale)
        # Version 0.10 of that reader knows no translation, and so is half a pixel of the mask off at most.
        for pixel in [(0, 0), (10, 20), tuple(np.subtract(ours.levels[0].shape, 1))]:
            expected = (
                np.multiply(pixel, scale) + translate
            )  # micrometres; the slide's first pixel centre is 0
            assert (np.abs(np.subtract(label.data_to_world(pixel), expected)) <= np.divide(scale, 2)).all()
        # And as it is seen: what the mask calls dark is dark on the slide at the same place.
        y, x = (int(side) // 2 for side in ours.levels[0].shape)
        seen = dark(slide, ours.downsample, y, x, 64, 64)
        assert 0 < seen.mean() < 1
        np.testing.assert_array_equal(np.asarray(label.data[0])[y : y + 64, x : x + 64], seen)
    overview = next(item for item in opened if item[2] == "image")
    ends = np.multiply(overview[0][0].shape[-2:], overview[1]["scale"])
    assert (np.abs(ends - np.multiply(label.data[0].shape, label.scale)) <= label.scale).all()


def test_tifffile_reads_the_pixels_and_the_scale(store, address, tmp_path):
    config = ExportConfig(stores=(store,), output=tmp_path / "out", kinds=("tiff",))
    (file,) = export_masks(config, lambda _event: None, Control())
    ours = open_masks(store)["student"]
    with tifffile.TiffFile(file) as tif, open_slide(address) as slide:
        (series,) = tif.series
        assert series.axes == "YX"
        np.testing.assert_array_equal(series.asarray(), np.asarray(ours.levels[0]))
        sizes = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]
        for axis, index in (("Y", 0), ("X", 1)):
            assert sizes[f"PhysicalSize{axis}"] == pytest.approx(slide.mpp[index] * ours.downsample[index])
            assert sizes[f"PhysicalSize{axis}Unit"] == "µm"
        for level, mask in zip(series.levels, ours.levels, strict=False):
            assert level.shape == mask.shape
