"""Masks and polygons: the one gives the other back, to the pixel, also where a tile's edge cuts and far too large."""

from __future__ import annotations

import numpy as np
import psutil
import pytest
import shapely

from napari_kdseg.slides import AnnotationShape, SlideError, annotation_to_shapes, open_annotation, open_slide
from napari_kdseg.slides.annotations import polygonise

HEIGHT, WIDTH = 903, 1101


@pytest.fixture(scope="module")
def slide(files):
    with open_slide(files["png"]) as slide:
        yield slide


def blobs(seed: int, shape=(HEIGHT, WIDTH), classes=4, cell=11) -> np.ndarray:
    """Noise of several classes in blocks, with single pixels on top: holes, islands, diagonal neighbours."""
    random = np.random.default_rng(seed)
    rows, columns = (-(-side // cell) for side in shape)
    mask = np.kron(random.integers(0, classes, (rows, columns)), np.ones((cell, cell)))[
        : shape[0], : shape[1]
    ]
    specks = random.random(shape) < 0.01
    mask[specks] = random.integers(0, classes, int(specks.sum()))
    return mask.astype(np.uint8)


def pixels(annotation) -> np.ndarray:
    return np.asarray(annotation.levels[0])


@pytest.mark.parametrize("tile", [64, 333, 4096])
@pytest.mark.parametrize("seed", range(2))
def test_mask_polygons_mask_is_the_identity(slide, seed, tile):
    mask = blobs(seed)
    annotation = open_annotation(mask, slide)
    shapes = annotation_to_shapes(annotation, tile=tile)
    assert all(shape.geometry.is_valid for shape in shapes)
    again = open_annotation(shapes, slide, classes=annotation.classes)
    np.testing.assert_array_equal(pixels(again), mask)
    assert again.classes == annotation.classes


def test_tiles_do_not_show_in_the_polygons(slide):
    annotation = open_annotation(blobs(5, cell=40), slide)
    whole, cut = (annotation_to_shapes(annotation, tile=tile) for tile in (4096, 50))
    assert len(whole) == len(cut)
    for one, other in zip(whole, cut, strict=True):
        assert one.class_name == other.class_name
        assert one.geometry.equals(other.geometry)
        assert len(other.geometry.interiors) == len(one.geometry.interiors)


def test_every_level_and_downsample_of_the_polygons_is_that_of_the_mask(slide):
    mask = blobs(6)
    annotation = open_annotation(mask, slide)
    again = open_annotation(annotation_to_shapes(annotation), slide, classes=annotation.classes)
    for one, other in zip(annotation.levels, again.levels, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    for downsample in (2, 3, 4, 7.3, (2.98, 4.0001), 64, 0.5):
        place = (downsample, 3, 2, 9, 11)
        np.testing.assert_array_equal(annotation.read_scaled(*place), again.read_scaled(*place))


def test_background_and_not_annotated_stay_apart(slide):
    mask = blobs(7)
    mask[100:300, 200:500] = 255
    shapes = annotation_to_shapes(open_annotation(mask, slide), tile=128)
    assert {shape.class_name for shape in shapes} == {"background", "class 1", "class 2", "class 3"}
    again = open_annotation(shapes, slide)
    np.testing.assert_array_equal(pixels(again) == 255, mask == 255)
    names = {name: index for index, name in enumerate(("background", "class 1", "class 2", "class 3"))}
    np.testing.assert_array_equal(pixels(open_annotation(shapes, slide, classes=names)), mask)


def test_a_coarser_mask_keeps_its_pixels(slide):
    mask = blobs(8, shape=(226, 276), cell=5)
    annotation = open_annotation(mask, slide)
    assert annotation.downsample == (HEIGHT / 226, WIDTH / 276)
    shapes = annotation_to_shapes(annotation, tile=100)
    again = open_annotation(shapes, slide, classes=annotation.classes)
    np.testing.assert_array_equal(again.read_scaled(annotation.downsample, 0, 0, 226, 276), mask)


def test_real_masks_come_back(real_data):
    masks = sorted((real_data / "ebhi-seg" / "masks").glob("*.png"))[::60]
    assert masks
    for path in masks:
        with open_slide(path) as own:
            annotation = open_annotation(path, own)
            shapes = annotation_to_shapes(annotation, tile=100)
            again = open_annotation(shapes, own, classes=annotation.classes)
            np.testing.assert_array_equal(pixels(again), pixels(annotation))


def square(left, top, side, name, **more):
    return AnnotationShape(shapely.box(left, top, left + side, top + side), name, **more)


def test_overlaps_and_what_lies_outside(slide):
    shapes = [square(10, 10, 20, "small"), square(0, 0, 100, "large"), square(90, 90, 30, "later")]
    smaller = open_annotation(shapes, slide)
    assert smaller.classes == ("background", "small", "large", "later")
    assert [smaller.read_scaled(1, y, y, 1, 1).item() for y in (15, 50, 95, 110, 200)] == [1, 2, 3, 3, 0]
    later = open_annotation(shapes, slide, overlap="later", outside=255)
    assert [later.read_scaled(1, y, y, 1, 1).item() for y in (15, 50, 95, 110, 200)] == [2, 2, 3, 3, 255]


def test_classes_are_numbered_as_asked(slide):
    shapes = [square(0, 0, 10, "tumour"), square(20, 20, 10, "stroma"), square(40, 40, 10, None)]
    assert open_annotation(shapes, slide).classes == ("background", "tumour", "stroma", "annotation")
    names = ("background", "stroma", "tumour", "annotation")
    ordered = open_annotation(shapes, slide, classes=names)
    assert ordered.classes == names
    assert [ordered.read_scaled(1, y, y, 1, 1).item() for y in (5, 25, 45)] == [2, 1, 3]
    mapped = open_annotation(shapes, slide, classes={"tumour": 1, "stroma": 0, "annotation": 255})
    assert [mapped.read_scaled(1, y, y, 1, 1).item() for y in (5, 25, 45, 100)] == [1, 0, 255, 255]
    assert mapped.classes == ("stroma", "tumour")
    with pytest.raises(SlideError, match="'stroma', 'annotation', but the classes asked for"):
        open_annotation(shapes, slide, classes=("background", "tumour"))


def test_regions_of_interest_are_background_and_ignored_parts_are_not(slide):
    shapes = [square(20, 20, 10, "Tumor"), square(40, 40, 10, "Ignore*"), square(0, 0, 30, "Region*")]
    annotation = open_annotation([*shapes, square(60, 60, 200, "Tumor")], slide)
    assert annotation.classes == ("background", "Tumor")
    places = (5, 25, 45, 55, 100)
    assert [annotation.read_scaled(1, y, y, 1, 1).item() for y in places] == [0, 1, 255, 255, 1]


def test_outlines_that_cross_themselves_are_filled_as_drawn(slide):
    bow = shapely.Polygon([(0, 0), (100, 100), (100, 0), (0, 100)])
    annotation = open_annotation([AnnotationShape(bow, "bow")], slide)
    mask = annotation.read_scaled(1, 0, 0, 100, 100)
    y, x = np.indices(mask.shape) + 0.5
    expected = ((x < y) & (x < 100 - y)) | ((x > y) & (x > 100 - y))
    clear = (np.abs(x - y) > 1) & (np.abs(x + y - 100) > 1)
    np.testing.assert_array_equal(mask[clear] == 1, expected[clear])
    np.testing.assert_array_equal(annotation.read_scaled(1, 30, 10, 40, 60), mask[30:70, 10:70])


def test_pixels_are_those_whose_centre_is_inside(slide):
    triangle = shapely.Polygon([(10.3, 20.7), (500.2, 60.1), (120.9, 700.4)])
    mask = pixels(open_annotation([AnnotationShape(triangle, "a")], slide))
    y, x = np.indices(mask.shape) + 0.5
    np.testing.assert_array_equal(mask == 1, shapely.contains_xy(triangle, x, y))


def test_what_has_no_area_or_no_place_is_refused(slide):
    with pytest.raises(SlideError, match="no outlined area"):
        open_annotation([AnnotationShape(shapely.Point(5, 5), "a")], slide)
    with pytest.raises(SlideError, match="outside of the slide of 1101 x 903 px"):
        open_annotation([square(2000, 50, 100, "a")], slide)


def test_a_mask_of_noise_is_refused_before_it_fills_the_memory(slide, monkeypatch):
    monkeypatch.setattr(polygonise, "MAX_VERTICES", 10_000)
    with pytest.raises(SlideError, match="more than 10,000 corners"):
        annotation_to_shapes(open_annotation(blobs(1, cell=1), slide))


def test_a_gigapixel_slide_needs_no_mask_in_memory():
    """8 gigapixels with 20,000 cells and one outline of 400,000 corners."""
    random = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 400_000, endpoint=False)
    radius = 30_000 + 3_000 * np.sin(40 * angles) + random.normal(0, 2, len(angles))
    tumour = shapely.Polygon(
        np.column_stack([50_000 + radius * np.cos(angles), 40_000 + radius * np.sin(angles)])
    )
    centres = random.uniform((1_000, 1_000), (99_000, 79_000), (20_000, 2))
    cells = shapely.buffer(shapely.points(centres), 20)
    shapes = [AnnotationShape(tumour, "tumour"), *(AnnotationShape(cell, "cell") for cell in cells)]
    with open_slide("synthetic:100000x80000") as slide:
        before = psutil.Process().memory_info().rss
        annotation = open_annotation(shapes, slide)
        for y, x in random.integers(0, (79_000, 99_000), (40, 2)):
            block = annotation.read_scaled(1, int(y), int(x), 512, 512)
            inside = shapely.contains_xy(tumour, x + 256.5, y + 256.5)
            near = shapely.dwithin(cells, shapely.Point(x + 256.5, y + 256.5), 22).any()
            assert near or block[256, 256] == int(inside)
        overview = np.asarray(annotation.levels[-1])
        assert overview.shape == (625, 782)
        share = (overview == 1).mean() * 100_000 * 80_000
        assert share == pytest.approx(tumour.area - np.pi * 20**2 * 20_000 * 0.37, rel=0.02)
        assert psutil.Process().memory_info().rss - before < 200 * 2**20
