from __future__ import annotations

import numpy as np
import pytest

from napari_kdseg.slides import Slide, SlideError, TileCache, open_annotation, open_slide
from napari_kdseg.slides.readers.synthetic_backend import SyntheticBackend

ADDRESS = "synthetic:100000x80000?seed=0&mpp=0.25"


class Counting(SyntheticBackend):
    """Counts the tiles it computes."""

    def read_tile(self, level, row, column):
        self.computed = [*getattr(self, "computed", []), (level, row, column)]
        return super().read_tile(level, row, column)


def glandular_spot(annotation):
    """Level-0 position (y, x) of the middle of some gland, found on the overview."""
    overview = np.asarray(annotation.levels[-1])
    rows, columns = np.nonzero(overview == 1)
    middle = len(rows) // 2
    factor = annotation.pyramid[-1].downsample
    return int((rows[middle] + 0.5) * factor[0]), int((columns[middle] + 0.5) * factor[1])


def test_a_gigapixel_slide_computes_only_what_is_looked_at():
    backend = Counting.parse(ADDRESS)
    slide = Slide(backend, ADDRESS, cache=TileCache(2**26))
    assert slide.shape == (80_000, 100_000)
    assert max(slide.levels[-1].shape) <= 1024
    assert slide.size_um == (20_000, 25_000)
    slide.read(0, 40_000, 40_000, 600, 900)
    assert set(backend.computed) == {(0, row, column) for row in (78, 79) for column in (78, 79)}
    assert len(backend.computed) == 4
    slide.read(0, 40_100, 40_100, 300, 300)
    assert len(backend.computed) == 4


def test_tiles_do_not_depend_on_who_asks_for_them():
    with open_slide(ADDRESS, cache=TileCache(0)) as one, open_slide(ADDRESS, cache=TileCache(0)) as other:
        region = one.read(1, 9_900, 20_300, 300, 300)
        np.testing.assert_array_equal(region[100:200, 50:250], other.read(1, 10_000, 20_350, 100, 200))
        assert one.identity() == other.identity()
    with open_slide(ADDRESS.replace("seed=0", "seed=1")) as another:
        assert another.identity() != one.identity()


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_no_tile_divides_by_nothing():
    backend = SyntheticBackend.parse(ADDRESS)
    for level, (row, column) in enumerate(
        [(78, 79), (39, 40), (20, 20), (10, 10), (5, 5), (2, 3), (1, 1), (0, 0)]
    ):
        shape = backend.metadata.levels[level].tile_shape(row, column)
        assert backend.read_tile(level, row, column).shape == (*shape, 3)


def test_it_looks_like_stained_tissue_on_glass():
    with open_slide("synthetic:20000x16000?seed=2") as slide:
        overview = slide.read(len(slide.levels) - 1, 0, 0, *slide.levels[-1].shape).astype(int)
    glass = (overview.min(axis=2) > 235).mean()
    assert 0.1 < glass < 0.9
    tissue = overview[overview.min(axis=2) < 200]
    red, green, blue = tissue.mean(axis=0)
    assert min(red, blue) > green + 30  # pink and purple


def test_the_mask_is_the_same_geometry_at_every_level():
    with open_slide(ADDRESS) as slide:
        annotation = open_annotation(ADDRESS, slide)
        assert annotation.classes == ("background", "gland")
        y, x = glandular_spot(annotation)
        for level, array in zip(annotation.pyramid, annotation.levels, strict=True):
            top, left = (max(0, int(p / f) - 60) for p, f in zip((y, x), level.downsample, strict=True))
            mask = array[top : top + 120, left : left + 120]
            # pixel by pixel, each computed alone
            for i, j in np.random.default_rng(0).integers(0, 120, (20, 2)):
                if i >= mask.shape[0] or j >= mask.shape[1]:
                    continue
                centre = [(o + 0.5) * f for o, f in zip((top + i, left + j), level.downsample, strict=True)]
                alone = SyntheticBackend.parse(ADDRESS).sample_classes(
                    np.array([centre[0]]), np.array([centre[1]])
                )
                assert mask[i, j] == alone[0, 0]
        region = annotation.levels[0][y - 300 : y + 300, x - 300 : x + 300]
        assert 0 < (region == 1).mean() < 1
        parts = [
            annotation.levels[0][y - 300 : y + 300, x - 300 + s : x - 300 + s + 150]
            for s in range(0, 600, 150)
        ]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), region)


def test_glands_are_as_large_as_glands():
    address = "synthetic:8000x8000?seed=3&mpp=1"
    with open_slide(address) as slide:
        from skimage.measure import label, regionprops

        mask = open_annotation(address, slide).read_scaled(4, 0, 0, 2000, 2000)
    sizes = [4 * region.equivalent_diameter_area for region in regionprops(label(mask == 1))]
    assert len(sizes) > 100
    assert 60 < np.percentile(sizes, 10) < np.percentile(sizes, 95) < 220


def test_epithelium_is_darker_than_stroma():
    address = "synthetic:3000x3000?seed=5&mpp=0.5"
    with open_slide(address) as slide:
        mask = np.asarray(open_annotation(address, slide).levels[0])
        pixels = slide.read(0, 0, 0, 3000, 3000)
    from scipy.ndimage import binary_erosion

    ring = (mask == 1) & ~binary_erosion(mask == 1, iterations=30) & binary_erosion(mask == 1, iterations=4)
    tissue = (pixels.min(axis=2) < 225) & (mask == 0)
    assert pixels[ring, 0].mean() < pixels[tissue, 0].mean() - 30


def test_three_classes_on_request():
    address = "synthetic:100000x80000?seed=0&mpp=0.25&classes=3"
    with open_slide(address) as slide:
        annotation = open_annotation(address, slide)
        assert annotation.classes == ("background", "benign gland", "tumour gland")
        overview = np.asarray(annotation.levels[-1])
        assert set(np.unique(overview)) == {0, 1, 2}
        two = np.asarray(open_annotation(ADDRESS, slide).levels[-1])
        np.testing.assert_array_equal(two, np.minimum(overview, 1))


@pytest.mark.parametrize(
    "address",
    ["synthetic:", "synthetic:?seed=1", "synthetic:700x300", "synthetic:1x1", "synthetic:3000x20?mpp=2"],
)
def test_any_size_works(address):
    with open_slide(address) as slide:
        for index, level in enumerate(slide.levels):
            assert slide.read(index, 0, 0, min(40, level.shape[0]), 30).shape[2] == 3


@pytest.mark.parametrize(
    "address",
    [
        "synthetic:12",
        "synthetic:0x5",
        "synthetic:9x9?sed=1",
        "synthetic:9x9?seed=a",
        "synthetic:9x9?mpp=-1",
        "synthetic:9x9?pen=maybe",
    ],
)
def test_a_wrong_address_is_explained(address):
    with pytest.raises(SlideError, match="synthetic:100000x80000"):
        open_slide(address)


def spots(mask_address, count=3):
    """Level-0 positions (y, x) where the mask is full, spread over the slide."""
    backend = SyntheticBackend.parse(mask_address)
    rows, columns = (np.arange(64, side, 2048.0) for side in backend.shape)
    found = np.argwhere(backend.sample_classes(rows, columns) > 0)
    return [(int(rows[i]), int(columns[j])) for i, j in found[:: len(found) // count][:count]]


def test_coarser_levels_have_the_colours_of_finer_ones():
    with open_slide(ADDRESS + "&blur=0") as slide:
        for y, x in spots(ADDRESS + "&mask=tissue"):
            y, x = y // 64 * 64, x // 64 * 64
            fine = slide.read(0, y, x, 1024, 1024).reshape(-1, 3).mean(axis=0)
            for level in (1, 2, 3, 4, 5):
                side = 1024 >> level
                coarse = slide.read(level, y >> level, x >> level, side, side).reshape(-1, 3).mean(axis=0)
                assert np.abs(coarse - fine).max() < 12


@pytest.mark.parametrize("options", ["", "&blur=0&folds=0&pen=0"])
def test_pixels_do_not_depend_on_the_tile_they_are_computed_in(options):
    backend = SyntheticBackend.parse(ADDRESS + options)
    y, x = spots(ADDRESS + "&mask=tissue", 1)[0]
    rows, columns = (np.arange(at, at + 90) * 0.25 for at in (y, x))
    whole = backend._paint(rows, columns, 0.25)
    part = backend._paint(rows[30:71], columns[11:48], 0.25)
    np.testing.assert_array_equal(part, whole[30:71, 11:48])


def test_masks_of_tissue_glands_and_tumour_fit_each_other():
    with open_slide(ADDRESS) as slide:
        masks = {
            name: np.asarray(open_annotation(f"{ADDRESS}&mask={name}", slide).levels[-1])
            for name in ("tissue", "gland", "tumour", "classes")
        }
        assert open_annotation(f"{ADDRESS}&mask=tissue", slide).classes == ("background", "tissue")
        overview = slide.read(len(slide.levels) - 1, 0, 0, *slide.levels[-1].shape)
    assert masks["tissue"][masks["gland"] == 1].all()
    np.testing.assert_array_equal(masks["tumour"], masks["classes"] == 2)
    np.testing.assert_array_equal(masks["gland"], masks["classes"] > 0)
    glass = overview.min(axis=2) > 235
    assert glass[masks["tissue"] == 0].mean() > 0.97  # the rest is pen
    assert 0.05 < masks["tumour"].mean() / masks["tissue"].mean() < 0.6


def test_switches_leave_the_rest_as_it_is():
    with_all = SyntheticBackend.parse(ADDRESS)
    without = SyntheticBackend.parse(ADDRESS + "&folds=0&pen=0&blur=0")
    level = len(with_all.metadata.levels) - 1
    one, other = with_all.read_tile(level, 0, 0), without.read_tile(level, 0, 0)
    changed = (one != other).any(axis=2).mean()
    assert 0.001 < changed < 0.05
    assert with_all.metadata.fingerprint != without.metadata.fingerprint
    assert SyntheticBackend.parse(without.address()).metadata == without.metadata


def test_a_field_out_of_focus_is_smoother():
    sharp, blurred = (SyntheticBackend.parse(f"{ADDRESS}&blur={blur}") for blur in (0, 1))
    rows, columns = np.arange(0, 20_000, 128.0), np.arange(0, 25_000, 128.0)
    worst = np.where(sharp.tissue.tissue(rows, columns) > 200, blurred._focus.blur(rows, columns), 0)
    tile = (1, *(int(i) // 2 for i in np.unravel_index(worst.argmax(), worst.shape)))  # 256 um a tile
    edges = [np.abs(np.diff(each.read_tile(*tile).astype(int), axis=1)).mean() for each in (sharp, blurred)]
    assert edges[1] < 0.6 * edges[0]


def test_laboratories_stain_differently():
    colours = []
    for stain in range(6):
        backend = SyntheticBackend.parse(f"{ADDRESS}&stain={stain}&pen=0")
        tile = backend.read_tile(len(backend.metadata.levels) - 1, 0, 0)
        colours.append(tile[tile.min(axis=2) < 225].mean(axis=0))
        assert colours[-1][1] < min(colours[-1][0], colours[-1][2]) - 15  # still pink and purple
    distance = np.abs(np.subtract(colours[1:], colours[0])).max(axis=1)
    assert (distance > 4).sum() >= 4
