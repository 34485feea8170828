from __future__ import annotations

import numpy as np
import pytest

from napari_kdseg.slides import Slide, SlideError, TileCache, open_annotation, open_slide
from napari_kdseg.slides.synthetic import SyntheticBackend

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


@pytest.mark.filterwarnings("error")
def test_no_tile_divides_by_nothing():
    backend = SyntheticBackend.parse(ADDRESS)
    for level, (row, column) in enumerate(
        [(78, 79), (39, 40), (20, 20), (10, 10), (5, 5), (2, 3), (1, 1), (0, 0)]
    ):
        backend.read_tile(level, row, column)


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
    ["synthetic:12", "synthetic:0x5", "synthetic:9x9?sed=1", "synthetic:9x9?seed=a", "synthetic:9x9?mpp=-1"],
)
def test_a_wrong_address_is_explained(address):
    with pytest.raises(SlideError, match="synthetic:100000x80000"):
        open_slide(address)
