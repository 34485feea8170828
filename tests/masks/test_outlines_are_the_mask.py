"""The outlines of an export, rasterised by another library, are the mask again, pixel by pixel."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import rasterio.features
import shapely

from napari_kdseg.jobs import Control
from napari_kdseg.masks import ExportConfig, MaskSpec, MaskStore, export_masks, plan_tiles
from napari_kdseg.masks.tiling import mask_shape
from napari_kdseg.slides import open_annotation, open_slide

TILE = 128
CLASSES = ("background", "tumour", "gland", "stroma", "necrosis", "fat")
COLOURS = ((0, 0, 0), (230, 159, 0), (0, 158, 115), (86, 180, 233), (0, 114, 178), (213, 94, 0))


def store_of(path, address, downsample, classes_of):
    """Write ``classes_of(slide, shape)`` as a mask and return it."""
    with open_slide(address) as slide:
        shape = mask_shape(slide.shape, downsample)
        classes = classes_of(slide, shape)
        spec = MaskSpec("labels", "student", "class", CLASSES, COLOURS)
        grid = {"shape": shape, "downsample": downsample, "tile": TILE}
        with MaskStore(path, slide).begin([spec], **grid, made_by={}) as writer:
            for tile in plan_tiles(shape, None, TILE, 0):
                cut = np.s_[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
                writer.write_tile(tile, [classes[cut]])
            writer.finish(None)
    return classes


def features_of(store, folder, **options):
    config = ExportConfig(stores=(store,), output=folder, kinds=("geojson",), **options)
    (file,) = export_masks(config, lambda _event: None, Control())
    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    return json.loads(content)["features"]


def assert_they_are(features, classes, downsample):
    """Every outline is a valid polygon, no two overlap, and together they are the classes."""
    polygons = [shapely.geometry.shape(feature["geometry"]) for feature in features]
    assert all(polygon.is_valid and polygon.area > 0 for polygon in polygons)
    values = [CLASSES.index(feature["properties"]["classification"]["name"]) for feature in features]
    # Each pixel of the mask is burnt where its centre lies, by GDAL, from the level-0 pixels of the file.
    scale = rasterio.Affine.scale(downsample[1], downsample[0])
    drawn = rasterio.features.rasterize(
        list(zip(polygons, values, strict=True)), out_shape=classes.shape, transform=scale, dtype=np.uint8
    )
    wanted = np.where(classes == 255, 0, classes)
    np.testing.assert_array_equal(drawn, wanted)
    area = sum(polygon.area for polygon in polygons) / (downsample[0] * downsample[1])
    assert area == pytest.approx((wanted > 0).sum(), rel=1e-9), (
        "outlines that overlap have more area than the mask"
    )


@pytest.mark.parametrize("downsample", [(1.0, 1.0), (2.0, 2.0), (3.3, 2.6)])
def test_classes_of_a_slide(tmp_path, monkeypatch, downsample):
    """Glands, tumour and lamina of a synthetic slide; most of them lie across borders of what is read at once."""
    monkeypatch.setattr("napari_kdseg.masks.export.pieces.BLOCK", 192)
    address = "synthetic:1500x1100?seed=3&mpp=2"

    def truth(slide, shape):
        annotation = open_annotation(f"{address}&mask=classes", slide)
        return annotation.read_scaled(downsample, 0, 0, *shape)

    classes = store_of(tmp_path / "a.ome.zarr", address, downsample, truth)
    assert {0, 1, 2} <= set(np.unique(classes))
    features = features_of(tmp_path / "a.ome.zarr", tmp_path / "out", compress=True)
    assert_they_are(features, classes, downsample)


@pytest.mark.parametrize("seed", range(4))
def test_noise(tmp_path, monkeypatch, seed):
    """Areas of single pixels that touch at corners, holes in holes, parts that were not computed; odd sides."""
    random = np.random.default_rng(seed)
    monkeypatch.setattr("napari_kdseg.masks.export.pieces.BLOCK", int(random.integers(40, 150)))
    downsample = [(1.0, 1.0), (2.0, 2.0), (2.5, 2.5), (1.7, 3.1)][seed]

    def noise(_slide, shape):
        classes = random.integers(0, len(CLASSES), shape).astype(np.uint8)
        classes[:, : shape[1] // 3] = np.where(classes[:, : shape[1] // 3] < 4, 1, 2)
        classes[shape[0] // 2 :, shape[1] // 2 :] = 255
        return classes

    address = f"synthetic:{301 + 90 * seed}x{257 + 64 * seed}?seed=1&mpp=0.5"
    classes = store_of(tmp_path / "a.ome.zarr", address, downsample, noise)
    assert_they_are(features_of(tmp_path / "a.ome.zarr", tmp_path / "out"), classes, downsample)
