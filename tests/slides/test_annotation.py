from __future__ import annotations

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_kdseg.slides import SlideError, open_annotation, open_slide

HEIGHT, WIDTH = 903, 1101


@pytest.fixture(scope="module")
def slide(files):
    with open_slide(files["png"]) as slide:
        yield slide


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    blocks = np.random.default_rng(3).integers(0, 3, (91, 111), dtype=np.uint8)
    return np.kron(blocks, np.ones((10, 10), np.uint8))[:HEIGHT, :WIDTH].copy()


def check(annotation, mask):
    """The annotation equals ``mask`` at its finest, and samples it at pixel centres elsewhere."""
    np.testing.assert_array_equal(np.asarray(annotation.levels[0]), mask)
    assert annotation.levels[0].dtype == np.uint8
    assert annotation.levels[0][100:200, np.int64(50) : 60].shape == (100, 10)
    np.testing.assert_array_equal(annotation.read_scaled(1, 200, 300, 50, 60), mask[200:250, 300:360])
    np.testing.assert_array_equal(
        annotation.read_scaled(3, 20, 30, 50, 60), mask[61 : 61 + 150 : 3, 91 : 91 + 180 : 3]
    )
    np.testing.assert_array_equal(
        annotation.read_scaled(0.5, 40, 60, 8, 8), np.kron(mask[20:24, 30:34], np.ones((2, 2)))
    )


def test_array(slide, mask):
    annotation = open_annotation(mask, slide)
    check(annotation, mask)
    assert annotation.downsample == (1.0, 1.0)
    assert annotation.classes == ("background", "class 1", "class 2")
    assert max(annotation.levels[-1].shape) <= 1024
    assert open_annotation(mask > 0, slide).classes == ("background", "class 1")


def test_outside_and_255_are_not_annotated(slide, mask):
    partly = mask.copy()
    partly[:50] = 255
    annotation = open_annotation(partly, slide)
    region = annotation.read_scaled(1, -5, WIDTH - 5, 70, 10)
    assert (region[:, 5:] == 255).all()
    assert (region[:55] == 255).all()
    np.testing.assert_array_equal(region[55:, :5], mask[50:65, -5:])
    assert annotation.classes == ("background", "class 1", "class 2")


@pytest.mark.parametrize("kind", ["png", "tiff-tiles", "tiff-strips"])
def test_files(slide, mask, tmp_path, kind):
    path = tmp_path / ("mask.png" if kind == "png" else "mask.tif")
    if kind == "png":
        Image.fromarray(mask).save(path)
    else:
        tifffile.imwrite(
            path, mask, compression="zlib", **({"tile": (128, 128)} if kind == "tiff-tiles" else {})
        )
    check(open_annotation(path, slide), mask)


def test_black_and_white_files_mean_one_class(slide, mask, tmp_path):
    binary = (mask > 0).astype(np.uint8) * 255
    Image.fromarray(binary).save(tmp_path / "mask.png")
    Image.fromarray(np.repeat(binary[..., None], 3, axis=2)).save(tmp_path / "rgb.png")
    Image.fromarray(mask > 0).save(tmp_path / "bits.png")
    tifffile.imwrite(tmp_path / "mask.tif", binary, tile=(256, 256))
    for name in ("mask.png", "rgb.png", "bits.png", "mask.tif"):
        annotation = open_annotation(tmp_path / name, slide)
        np.testing.assert_array_equal(np.asarray(annotation.levels[0]), mask > 0, err_msg=name)
        assert annotation.classes == ("background", "class 1")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_labels(slide, mask, tmp_path, version):
    group = zarr.create_group(tmp_path / "x.ome.zarr", zarr_format=3 if version == "0.5" else 2)
    label = group.create_group("labels/glands")
    datasets = []
    for index, data in enumerate((mask, mask[1::2, 1::2])):
        array = label.create_array(str(index), shape=data.shape, chunks=(256, 256), dtype="uint8")
        array[:] = data
        scale = [{"type": "scale", "scale": [2.0**index] * 2}]
        datasets.append({"path": str(index), "coordinateTransformations": scale})
    axes = [{"name": name, "type": "space"} for name in "yx"]
    about = {
        "multiscales": [{"axes": axes, "datasets": datasets}],
        "image-label": {
            "properties": [{"label-value": 1, "name": "gland"}, {"label-value": 3, "name": "vessel"}]
        },
    }
    label.attrs.update({"ome": about | {"version": "0.5"}} if version == "0.5" else about)
    annotation = open_annotation(tmp_path / "x.ome.zarr" / "labels" / "glands", slide)
    assert annotation.classes == ("background", "gland", "class 2", "vessel")
    check(annotation, mask)
    coarse = annotation.levels[1]
    assert coarse.shape == (452, 551)


def test_a_coarser_mask_covers_the_slide(slide):
    coarse = np.arange(226 * 276, dtype=np.uint32).reshape(226, 276) % 4
    annotation = open_annotation(coarse, slide)
    assert annotation.downsample == (HEIGHT / 226, WIDTH / 276)
    np.testing.assert_array_equal(np.asarray(annotation.levels[0]), coarse)
    rows = ((np.arange(100, 140) + 0.5) / annotation.downsample[0]).astype(int)
    np.testing.assert_array_equal(annotation.read_scaled(1, 100, 0, 40, 1)[:, 0], coarse[rows, 0])


@pytest.mark.parametrize("shape", [(400, 600), (903, 1001), (1101, 903)])
def test_a_mask_that_does_not_fit_is_refused(slide, shape):
    with pytest.raises(
        SlideError, match=rf"{shape[1]} x {shape[0]} px, which does not fit the slide of 1101 x 903 px"
    ):
        open_annotation(np.zeros(shape, np.uint8), slide)


@pytest.mark.parametrize(
    ("width", "height"), [(1101, 903), (550, 451), (551, 452), (275, 225), (69, 56), (35, 28)]
)
def test_any_rounding_of_one_downsample_fits(slide, width, height):
    open_annotation(np.zeros((height, width), np.uint8), slide)


def test_what_is_no_mask_is_refused(slide, files, tmp_path):
    with pytest.raises(SlideError, match="whole numbers"):
        open_annotation(np.zeros((HEIGHT, WIDTH), np.float32), slide)
    with pytest.raises(SlideError, match="one number per class"):
        open_annotation(np.arange(HEIGHT * WIDTH, dtype=np.int32).reshape(HEIGHT, WIDTH), slide)
    with pytest.raises(SlideError, match="coloured picture"):
        open_annotation(files["png"], slide)
    with pytest.raises(SlideError, match="not a mask"):
        open_annotation(files["tiff-strips"], slide)
    with pytest.raises(SlideError, match="no mask at"):
        open_annotation(tmp_path / "missing.png", slide)
    with pytest.raises(SlideError, match="does not fit"):
        open_annotation("synthetic:500x900", slide)
