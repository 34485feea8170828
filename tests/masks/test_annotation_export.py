"""Conversions as a whole: outlines -> mask file -> outlines, through the formats that hold each class mask exactly."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
import tifffile

from napari_kdseg.errors import ConfigurationError, InTheWayError, SlideError
from napari_kdseg.jobs import Control, JobCancelled, Step
from napari_kdseg.masks import open_masks
from napari_kdseg.masks.export.annotations import ConvertAnnotationsConfig, convert_annotations
from napari_kdseg.slides import (
    AnnotationShape,
    open_annotation,
    open_slide,
    read_annotations,
    write_annotations,
)

SLIDE = "synthetic:2300x1700?seed=3&mpp=0.5"
CLASSES = ("background", "tumour", "stroma")


@pytest.fixture
def outlines(tmp_path):
    hole = shapely.box(300, 300, 400, 420)
    shapes = [
        AnnotationShape(
            shapely.Point(700, 700).buffer(600.7).difference(hole), "tumour", (200, 10, 3), "large"
        ),
        AnnotationShape(shapely.box(1300, 100, 2300, 1699.5), "stroma", (1, 250, 77)),
    ]
    write_annotations(tmp_path / "a.geojson", shapes)
    return tmp_path / "a.geojson"


def convert(source, target, emit=lambda event: None, control=None, **more):
    config = ConvertAnnotationsConfig(source=source, target=target, **more)
    return convert_annotations(config, emit, control or Control())


def pixels(source, **more):
    with open_slide(SLIDE) as slide:
        return np.asarray(open_annotation(source, slide, **more).levels[0])


@pytest.mark.parametrize("name", ["mask.tif", "masks.ome.zarr"])
def test_outlines_to_a_mask_file_and_back(outlines, tmp_path, name):
    wanted = pixels(outlines)
    assert set(np.unique(wanted)) == {0, 1, 2}
    seen: list[object] = []
    made = convert(outlines, tmp_path / name, seen.append, slide=SLIDE)
    assert made.classes == CLASSES
    last = seen[-1]
    assert isinstance(last, Step)
    assert last.done == last.total
    mask = tmp_path / name / "labels" / "annotation" if name.endswith("zarr") else tmp_path / name
    np.testing.assert_array_equal(pixels(mask), wanted)
    for target in ("again.geojson.gz", "again.xml"):
        # without a slide, the mask is its own slide; names and colours are in it
        back = convert(mask, tmp_path / target)
        assert back.classes == CLASSES[1:]
        told = {(s.class_name, s.colour) for s in read_annotations(tmp_path / target)}
        assert told == {("tumour", (200, 10, 3)), ("stroma", (1, 250, 77))}
        np.testing.assert_array_equal(pixels(tmp_path / target, classes=CLASSES), wanted)


def test_a_tiff_mask_is_a_pyramid_with_a_scale(outlines, tmp_path):
    convert(outlines, tmp_path / "mask.tif", slide=SLIDE, downsample=1.5, outside=255)
    with tifffile.TiffFile(tmp_path / "mask.tif") as tif:
        (series,) = tif.series
        assert [level.shape for level in series.levels] == [(1133, 1533), (567, 767)]
        assert series.levels[0].keyframe.is_tiled
        assert 'PhysicalSizeX="0.750' in tif.ome_metadata
    with open_slide(SLIDE) as slide:
        annotation = open_annotation(outlines, slide, outside=255)
        mask = open_annotation(tmp_path / "mask.tif", slide)
        assert mask.downsample == (1700 / 1133, 2300 / 1533)
        np.testing.assert_array_equal(
            np.asarray(mask.levels[0]), annotation.read_scaled(mask.downsample, 0, 0, 1133, 1533)
        )


def test_a_label_keeps_names_and_colours_and_lies_beside_others(outlines, tmp_path):
    convert(outlines, tmp_path / "m.ome.zarr", slide=SLIDE)
    convert(outlines, tmp_path / "m.ome.zarr", slide=SLIDE, name="coarse", downsample=4)
    masks = open_masks(tmp_path / "m.ome.zarr")
    assert set(masks) == {"annotation", "coarse"}
    assert masks["annotation"].classes == CLASSES
    assert masks["annotation"].colours[1:] == ((200, 10, 3), (1, 250, 77))
    assert masks["coarse"].levels[0].shape == (425, 575)
    with pytest.raises(InTheWayError):
        convert(outlines, tmp_path / "m.ome.zarr", slide=SLIDE)
    convert(outlines, tmp_path / "m.ome.zarr", slide=SLIDE, classes=(*CLASSES, "more"), overwrite=True)
    assert open_masks(tmp_path / "m.ome.zarr")["annotation"].classes == (*CLASSES, "more")


def test_classes_can_be_named_and_a_described_mask_is_not_black_and_white(outlines, tmp_path):
    shapes = [AnnotationShape(shapely.box(10, 10, 500, 500), "background", (1, 2, 3))]
    write_annotations(tmp_path / "b.geojson", shapes)
    convert(tmp_path / "b.geojson", tmp_path / "mask.tif", slide=SLIDE)
    mask = pixels(tmp_path / "mask.tif")
    assert mask[100, 100] == 0  # of 0 and 255 only, and yet 0 is background and 255 not annotated
    assert mask[600, 600] == 255
    convert(outlines, tmp_path / "mask.tif", slide=SLIDE, overwrite=True)
    named = convert(tmp_path / "mask.tif", tmp_path / "c.geojson", classes=("nothing", "a", "b", "c"))
    assert named.classes == ("a", "b")


def test_the_truth_of_a_synthetic_slide_becomes_outlines(tmp_path):
    made = convert("synthetic:900x700?seed=2&mpp=0.5", tmp_path / "glands.xml", xml="imagescope")
    assert made.shapes == len(read_annotations(tmp_path / "glands.xml")) > 0
    with open_slide("synthetic:900x700?seed=2&mpp=0.5") as slide:
        truth = open_annotation(slide.path, slide)
        again = open_annotation(tmp_path / "glands.xml", slide, classes=truth.classes)
        np.testing.assert_array_equal(np.asarray(again.levels[0]), np.asarray(truth.levels[0]))


def test_what_cannot_be_converted_is_refused(outlines, tmp_path):
    with pytest.raises(ConfigurationError, match="say which one with --slide"):
        convert(outlines, tmp_path / "mask.tif")
    with pytest.raises(ConfigurationError, match="scanned area"):
        convert(outlines, tmp_path / "b.geojson", target_bounds=True)
    with pytest.raises(ConfigurationError, match="says no format"):
        convert(outlines, tmp_path / "mask.txt", slide=SLIDE)
    with pytest.raises(InTheWayError, match="there already"):
        convert(outlines, outlines)
    with pytest.raises(SlideError, match="no annotation file"):
        convert(tmp_path / "none.xml", tmp_path / "b.geojson")


def test_a_cancelled_conversion_leaves_no_file(outlines, tmp_path):
    control = Control()
    with pytest.raises(JobCancelled):
        convert(outlines, tmp_path / "mask.tif", lambda event: control.cancel(), control, slide=SLIDE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.geojson"]


@pytest.mark.parametrize("wanted", [None, False])
def test_conversions_know_the_scanned_area(tmp_path, wanted):
    """GeoJSON counts from its corner, a mask and XML from that of the slide; each may be told otherwise."""
    scanned = "synthetic:600x500?mpp=0.5&bounds=120,80,400,300"
    write_annotations(tmp_path / "a.geojson", [AnnotationShape(shapely.box(50, 50, 150, 150), "a")])
    said: list[object] = []
    convert(tmp_path / "a.geojson", tmp_path / "a.tif", said.append, slide=scanned, source_bounds=wanted)
    dx, dy = (120, 80) if wanted is None else (0, 0)
    mask = tifffile.imread(tmp_path / "a.tif")
    assert mask.sum() == mask[50 + dy : 150 + dy, 50 + dx : 150 + dx].sum() == 100 * 100
    assert any("counting from the corner" in getattr(event, "text", "") for event in said)
    convert(tmp_path / "a.geojson", tmp_path / "a.xml", slide=scanned, source_bounds=wanted)
    (moved,) = read_annotations(tmp_path / "a.xml")
    assert moved.geometry.bounds == (50 + dx, 50 + dy, 150 + dx, 150 + dy)
    convert(tmp_path / "a.tif", tmp_path / "b.geojson", slide=scanned, target_bounds=wanted)
    (back,) = read_annotations(tmp_path / "b.geojson")
    assert back.geometry.bounds == (50, 50, 150, 150)
