"""Every compression that slides come in: the pixels are those of tifffile."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_kdseg.slides import open_slide

CODECS = {
    "none": {"compression": None},
    "deflate": {"compression": "zlib"},
    "deflate, predictor": {"compression": "zlib", "predictor": True},
    "lzw, predictor": {"compression": "lzw", "predictor": True},
    "zstd": {"compression": "zstd"},
    "packbits": {"compression": "packbits"},
    "lzma": {"compression": "lzma"},
    "webp": {"compression": "webp", "compressionargs": {"lossless": True}},
    "jpeg, 4:2:0": {
        "compression": "jpeg",
        "compressionargs": {"level": 90, "outcolorspace": "ycbcr"},
        "subsampling": (2, 2),
    },
    "jpeg, rgb": {"compression": "jpeg", "compressionargs": {"level": 90}},
    "jpeg 2000": {"compression": "jpeg2000", "compressionargs": {"level": 0}},
    "jpeg 2000, Aperio": {"compression": 33005, "compressionargs": {"level": 40}},
}


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("tile", [(256, 256), (240, 112)])
def test_pixels_are_those_of_tifffile(name, tile, picture, tmp_path):
    path = tmp_path / "slide.tif"
    pixels = np.ascontiguousarray(picture[300:870, 200:900])
    tifffile.imwrite(path, pixels, photometric="rgb", tile=tile, metadata=None, **CODECS[name])
    wanted = tifffile.imread(path)
    with open_slide(path) as slide:
        assert slide.reader == "tifffile"
        assert slide.levels[0].tile == tile
        np.testing.assert_array_equal(slide.read(0, 0, 0, *slide.shape), wanted)
        assert slide.bad_tiles == []
    assert np.abs(wanted.astype(int) - pixels).mean() < 4


@pytest.mark.parametrize("dtype", ["uint16", ">u2", "float32"])
@pytest.mark.parametrize("compression", [None, "zlib", "zstd", "lzw"])
def test_deep_pixels(dtype, compression, tmp_path):
    path = tmp_path / "deep.tif"
    pixels = np.random.default_rng(0).integers(0, 60_000, (300, 220)).astype(dtype)
    tifffile.imwrite(
        path,
        pixels,
        tile=(128, 128),
        compression=compression,
        metadata=None,
        byteorder=">" if dtype == ">u2" else "<",
        photometric="minisblack",
    )
    with open_slide(path) as slide:
        assert slide.dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(slide.read(0, 0, 0, 300, 220)[..., 0], pixels)
