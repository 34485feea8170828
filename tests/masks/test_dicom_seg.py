"""Masks as DICOM segmentations, opened again by pydicom and highdicom."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.jobs import Control
from napari_kdseg.masks import ExportConfig, MaskSpec, MaskStore, export_masks, plan_tiles
from napari_kdseg.masks.tiling import mask_shape
from napari_kdseg.slides import open_slide

CLASSES = ("background", "tumour", "gland")
COLOURS = ((0, 0, 0), (230, 159, 0), (0, 158, 115))
TILE = 256


@pytest.fixture
def dicom_slide(real_data):
    folder = real_data / "slides" / "dicom-cmu-1-small-region"
    if not folder.is_dir():
        pytest.skip(f"the DICOM slide is not at {folder}")
    return folder


def export(store, folder, slide):
    config = ExportConfig(stores=(store,), output=folder, kinds=("dicom",), slide=str(slide))
    (file,) = export_masks(config, lambda _event: None, Control())
    return file


def write(path, address, downsample):
    """A mask of three classes with a part that was not computed."""
    with open_slide(address) as slide:
        shape = mask_shape(slide.shape, downsample)
        rows, columns = np.indices(shape)
        classes = ((rows // 61 + columns // 83) % 3).astype(np.uint8)
        spec = MaskSpec("labels", "student", "class", CLASSES, COLOURS)
        grid = {"shape": shape, "downsample": downsample, "tile": TILE}
        with MaskStore(path, slide).begin([spec], **grid, made_by={}) as writer:
            for tile in plan_tiles(shape, None, TILE, 0):
                if tile.row > 0:
                    cut = np.s_[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
                    writer.write_tile(tile, [classes[cut]])
    classes[:TILE] = 0
    return classes


@pytest.mark.parametrize("downsample", [(1.0, 1.0), (2.0, 2.0)])
def test_a_segmentation_has_the_pixels_and_the_place_of_the_mask(tmp_path, dicom_slide, downsample):
    highdicom = pytest.importorskip(
        "highdicom", reason="DICOM segmentations are an extra: napari-kdseg[dicom]"
    )
    classes = write(tmp_path / "case.ome.zarr", dicom_slide, downsample)
    file = export(tmp_path / "case.ome.zarr", tmp_path / "out", dicom_slide)
    assert file.name == "case.student.seg.dcm"
    segmentation = highdicom.seg.segread(file)
    assert segmentation.number_of_segments == 2
    read = segmentation.get_total_pixel_matrix(combine_segments=True)
    np.testing.assert_array_equal(read, classes)
    (measures,) = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    with open_slide(dicom_slide) as slide:
        # mm; the same extent as the slide, from the same corner
        expected = [mpp * factor / 1000 for mpp, factor in zip(slide.mpp, downsample, strict=True)]
    assert [float(side) for side in measures.PixelSpacing] == pytest.approx(expected, rel=1e-6)
    source = segmentation.get_source_image_uids()
    assert len(source) == 1
    for number, name in ((1, "tumour"), (2, "gland")):
        about = segmentation.get_segment_description(number)
        assert about.segment_label == name
        colour = highdicom.color.CIELabColor.from_dicom_value(about.RecommendedDisplayCIELabValue)
        assert np.abs(np.subtract(colour.to_rgb(), COLOURS[number])).max() <= 2
        assert about.algorithm_type == highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC
    assert segmentation.get_segment_description(1).segmented_property_type.meaning == "Neoplasm"
    assert segmentation.get_segment_description(2).segmented_property_type.meaning == "Tissue"


def test_one_file_of_the_slide_is_enough(tmp_path, dicom_slide):
    highdicom = pytest.importorskip(
        "highdicom", reason="DICOM segmentations are an extra: napari-kdseg[dicom]"
    )
    largest = max(dicom_slide.glob("*.dcm"), key=lambda file: file.stat().st_size)
    classes = write(tmp_path / "case.ome.zarr", largest, (4.0, 4.0))
    file = export(tmp_path / "case.ome.zarr", tmp_path / "out", largest)
    read = highdicom.seg.segread(file).get_total_pixel_matrix(combine_segments=True)
    np.testing.assert_array_equal(read, classes)


def test_other_slides_and_a_missing_package_are_said(tmp_path, monkeypatch):
    address = "synthetic:900x600?seed=1&mpp=0.5"
    write(tmp_path / "case.ome.zarr", address, (2.0, 2.0))
    if importlib.util.find_spec("highdicom") is not None:
        with pytest.raises(ConfigurationError, match="is not a DICOM slide"):
            export(tmp_path / "case.ome.zarr", tmp_path / "out", address)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'napari-kdseg\[dicom\]'"):
        export(tmp_path / "case.ome.zarr", tmp_path / "out", address)
    assert not list((tmp_path / "out").iterdir())
