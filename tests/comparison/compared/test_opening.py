"""Masks of every kind become the same classes on the slide; what does not fit is a sentence."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_kdseg.comparison import open_compared, put_together
from napari_kdseg.comparison.compared.class_mapping import as_assignments, common_classes, read_classes
from napari_kdseg.errors import ConfigurationError, DataError, SlideError
from napari_kdseg.jobs import Control
from napari_kdseg.masks import ExportConfig, MaskSpec, MaskStore, export_masks, plan_tiles
from napari_kdseg.slides import open_slide

ADDRESS = "synthetic:240x180?seed=1&mpp=0.5"
CLASSES = ("background", "benign", "tumour")
COLOURS = ((0, 0, 0), (0, 158, 115), (230, 159, 0))


@pytest.fixture(scope="module")
def slide():
    with open_slide(ADDRESS) as opened:
        yield opened


def squares(shape=(90, 120)):
    """Classes whose outlines follow pixels, so that outlines and pixels say the same."""
    values = np.zeros(shape, np.uint8)
    values[10:40, 20:70] = 1
    values[50:80, 30:100] = 2
    return values


def store_of(path, slide, names=("student",), values=None, tiles=None, probabilities=False):
    values = squares() if values is None else values
    for name in names:
        specs = [MaskSpec("labels", name, "class", CLASSES, COLOURS)]
        if probabilities:
            specs.append(MaskSpec("probabilities", name, "probability of the predicted class"))
        grid = {"shape": values.shape, "downsample": (2.0, 2.0), "tile": 64}
        with MaskStore(path, slide).begin(specs, **grid, made_by={"slide": slide.identity()}) as writer:
            for tile in plan_tiles(values.shape, None, 64, 0)[:tiles]:
                cut = np.s_[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
                writer.write_tile(tile, [values[cut], np.full_like(values[cut], 200)][: len(specs)])
            if tiles is None:
                writer.finish(None)
    return path


def seen(mask, values=None):
    values = squares() if values is None else values
    return mask.read((2.0, 2.0), 0, 0, *values.shape)


def test_a_store_is_opened_by_the_name_of_its_mask_or_by_the_role(tmp_path, slide):
    path = store_of(tmp_path / "m.ome.zarr", slide, ("teacher", "student"), probabilities=True)
    for source, role in ((path, "teacher"), (f"{path}?student", "reference"), (str(path), "student")):
        mask = open_compared(source, slide, role=role)
        np.testing.assert_array_equal(seen(mask), squares())
        assert mask.downsample == (2.0, 2.0)
        assert (mask.read_probability((2.0, 2.0), 0, 0, 5, 5) == 200).all()
        assert not mask.notes
    with pytest.raises(ConfigurationError, match="say which one is the reference"):
        open_compared(path, slide, role="reference")
    with pytest.raises(ConfigurationError, match="holds no mask 'nobody'"):
        open_compared(f"{path}?nobody", slide, role="reference")


def test_masks_of_another_slide_empty_ones_and_growing_ones_are_said(tmp_path, slide):
    path = store_of(tmp_path / "m.ome.zarr", slide)
    with (
        open_slide("synthetic:240x180?seed=2&mpp=0.5") as other,
        pytest.raises(DataError, match="another slide"),
    ):
        open_compared(path, other, role="student")
    nothing = store_of(tmp_path / "empty.ome.zarr", slide, tiles=0)
    with pytest.raises(DataError, match="is empty: no tile of it is done yet"):
        open_compared(nothing, slide, role="student")
    growing = store_of(tmp_path / "grows.ome.zarr", slide, tiles=1)
    mask = open_compared(growing, slide, role="student")
    assert "still growing" in mask.notes[0]
    store_of(growing, slide, tiles=2)
    assert open_compared(growing, slide, role="student").made_by != mask.made_by  # what was compared is stale
    assert (
        open_compared(path, slide, role="student").made_by
        == open_compared(path, slide, role="student").made_by
    )


def test_pictures_and_other_pyramids_say_the_same(tmp_path, slide):
    values = squares()
    Image.fromarray(values).save(tmp_path / "m.png")
    tifffile.imwrite(tmp_path / "m.tif", values, tile=(64, 64))
    for source in (tmp_path / "m.png", str(tmp_path / "m.tif"), values):
        mask = open_compared(source, slide, role="reference")
        np.testing.assert_array_equal(seen(mask), values)
        assert mask.classes == ("background", "class 1", "class 2")
    one, other = (open_compared(source, slide, role="reference") for source in (values, np.flipud(values)))
    assert one.made_by != other.made_by


@pytest.mark.parametrize("kind", ["geojson", "tiff"])
def test_what_we_export_comes_back(tmp_path, slide, kind):
    path = store_of(tmp_path / "m.ome.zarr", slide)
    config = ExportConfig(stores=(path,), output=tmp_path, kinds=(kind,))
    (file,) = export_masks(config, lambda _event: None, Control())
    mask = open_compared(file, slide, role="reference")
    masks = put_together([open_compared(path, slide, role="student"), mask], slide)
    assert masks.downsample == (2.0, 2.0)
    blocks = masks.read(0, 0, 90, 120)
    np.testing.assert_array_equal(blocks["reference"], blocks["student"])
    assert masks.classes == CLASSES


def test_a_dicom_segmentation_comes_back_in_any_thread(tmp_path, real_data):
    pytest.importorskip("highdicom", reason="DICOM segmentations are an extra: napari-kdseg[dicom]")
    folder = real_data / "slides" / "dicom-cmu-1-small-region"
    if not folder.is_dir():
        pytest.skip(f"the DICOM slide is not at {folder}")
    with open_slide(folder) as slide:
        shape = tuple(-(-side // 4) for side in slide.shape)
        rows, columns = np.indices(shape)
        values = ((rows // 61 + columns // 83) % 3).astype(np.uint8)
        spec = MaskSpec("labels", "student", "class", CLASSES, COLOURS)
        grid = {"shape": shape, "downsample": (4.0, 4.0), "tile": 256}
        with MaskStore(tmp_path / "m.ome.zarr", slide).begin([spec], **grid, made_by={}) as writer:
            for tile in plan_tiles(shape, None, 256, 0):
                cut = np.s_[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
                writer.write_tile(tile, [values[cut]])
            writer.finish(None)
        config = ExportConfig(
            stores=(tmp_path / "m.ome.zarr",), output=tmp_path, kinds=("dicom",), slide=str(folder)
        )
        (file,) = export_masks(config, lambda _event: None, Control())
        mask = open_compared(file, slide, role="reference")
        found = []
        reader = threading.Thread(
            target=lambda: found.append(mask.read((4.0, 4.0), 30, 41, shape[0] - 30, shape[1] - 41))
        )
        reader.start()
        reader.join()
        np.testing.assert_array_equal(found[0], values[30:, 41:])
        assert mask.classes == CLASSES
        other = tmp_path / "other.dcm"
        other.write_bytes(next(folder.glob("*.dcm")).read_bytes())
        with pytest.raises(SlideError, match="not a segmentation of a slide"):
            open_compared(other, slide, role="reference")


def test_dicom_without_its_package_is_said(tmp_path, slide, monkeypatch):
    import sys

    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM")
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'napari-kdseg\[dicom\]'"):
        open_compared(tmp_path / "a.dcm", slide, role="reference")


# -- classes -----------------------------------------------------------------------------------------------------------


def named(slide, role, classes):
    mask = open_compared(squares(), slide, role=role)
    return type(mask)(**{**vars(mask), "classes": classes})


def test_classes_are_the_same_by_name_not_by_order(slide):
    teacher = named(slide, "teacher", ("background", "Tumour", "stroma"))
    student = named(slide, "student", ("background", "stroma", "TUMOUR", "necrosis"))
    mapped, common = common_classes([teacher, student])
    assert common == ("background", "Tumour", "stroma", "necrosis")
    assert {own: mapped[1].mapping[own] for own in range(4)} == {0: 0, 1: 2, 2: 1, 3: 3}
    assert "Only the student knows 'necrosis'" in mapped[1].notes[-1]
    expected = np.array([0, 2, 1, 3], np.uint8)[squares()]
    np.testing.assert_array_equal(seen(mapped[1]), expected)


def test_classes_without_names_are_the_same_by_number(slide):
    teacher = named(slide, "teacher", CLASSES)
    mapped, common = common_classes(
        [teacher, named(slide, "reference", ("background", "class 1", "class 2"))]
    )
    assert common == CLASSES
    np.testing.assert_array_equal(seen(mapped[1]), squares())


def test_what_a_person_says_goes_first_and_can_be_kept(slide):
    teacher, student = named(slide, "teacher", CLASSES), named(slide, "student", CLASSES)
    said = read_classes(["student:tumour=benign", "benign=255"])
    mapped, common = common_classes([teacher, student], said)
    np.testing.assert_array_equal(seen(mapped[1]), np.array([0, 255, 1], np.uint8)[squares()])
    np.testing.assert_array_equal(seen(mapped[0]), squares())
    kept = [line for mask in mapped for line in as_assignments(mask, common)]
    again, _ = common_classes([teacher, student], read_classes(kept))
    assert [dict(mask.mapping) for mask in again] == [dict(mask.mapping) for mask in mapped]


def test_a_value_without_a_name_is_no_common_class(slide):
    teacher = named(slide, "teacher", ("background", "benign", "tumour"))
    student = named(slide, "student", ("background", "benign"))  # but it holds 2
    mapped, _ = common_classes([teacher, student])
    assert set(np.unique(seen(mapped[1]))) == {0, 1, 254}


@pytest.mark.parametrize("text", ["3", "=1", "student:=1", "a="])
def test_what_is_no_assignment_is_said(text):
    with pytest.raises(ConfigurationError, match="own=common"):
        read_classes([text])


def test_outlines_of_a_scanned_area_are_moved_and_that_is_said(tmp_path, slide, monkeypatch):
    square = {"type": "Polygon", "coordinates": [[[10, 20], [50, 20], [50, 60], [10, 60], [10, 20]]]}
    feature = {"type": "Feature", "geometry": square, "properties": {"classification": {"name": "tumour"}}}
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(feature))
    monkeypatch.setattr(type(slide), "bounds", (30, 40, 120, 180), raising=False)
    for bounds, corner, sentence in (
        (None, (50, 50), "of the scanned area (40, 30)"),  # GeoJSON, as QuPath counts
        (True, (50, 50), "of the scanned area (40, 30)"),
        (False, (20, 10), "of the slide"),
    ):
        mask = open_compared(path, slide, role="reference", bounds=bounds)
        rows, columns = np.nonzero(mask.read((1.0, 1.0), 0, 0, *slide.shape))
        assert (rows.min(), columns.min()) == corner
        assert sentence in mask.notes[0]
