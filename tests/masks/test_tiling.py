import numpy as np
import pytest

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.masks.tiling import mask_shape, plan_tiles, to_level_0, to_mask_region


@pytest.mark.parametrize("seed", range(40))
def test_every_pixel_is_written_exactly_once_and_seen_with_its_halo(seed):
    random = np.random.default_rng(seed)
    multiple = int(random.choice([1, 8, 16, 32]))
    tile = multiple * int(random.integers(1, 9)) * (2 if multiple == 1 else 1)
    halo = int(random.integers(0, 70))
    shape = tuple(int(side) for side in random.integers(1, 500, 2))
    region = None
    if seed % 2:
        y, x = (int(random.integers(-20, side)) for side in shape)
        region = (y, x, int(random.integers(21, 300)), int(random.integers(21, 300)))
    tiles = plan_tiles(shape, region, tile, halo, multiple)

    written = np.zeros(shape, dtype=int)
    for item in tiles:
        written[item.y : item.y + item.height, item.x : item.x + item.width] += 1
        assert (item.y, item.x) == (item.row * tile, item.column * tile)
        y, x, height, width = item.window
        assert y % multiple == x % multiple == height % multiple == width % multiple == 0
        assert item.y - y >= halo
        assert y + height - item.y - item.height >= halo
        core = np.zeros((height, width))[item.core]
        assert core.shape == (item.height, item.width)
    assert written.max() == 1
    top, left, height, width = region or (0, 0, *shape)
    asked = written[max(top, 0) : top + height, max(left, 0) : left + width]
    assert asked.min() == 1
    if region is None:
        assert written.min() == 1
    assert len({item.window[2:] for item in tiles}) == 1


def test_tiles_come_from_the_middle_outward():
    tiles = plan_tiles((700, 700), None, 100, 0)
    assert (tiles[0].row, tiles[0].column) == (3, 3)
    rings = [max(abs(item.row - 3), abs(item.column - 3)) for item in tiles]
    assert rings[1:5] == [1, 1, 1, 1]
    assert rings[-1] == 3


def test_a_tile_that_does_not_fit_the_network_is_refused_with_one_that_does():
    with pytest.raises(ConfigurationError, match=r"multiple of 32.*Use 96 instead"):
        plan_tiles((100, 100), None, 100, 0, 32)


def test_a_region_outside_the_slide_is_refused():
    with pytest.raises(ConfigurationError, match="outside the slide"):
        plan_tiles((100, 100), (200, 0, 10, 10), 32, 0)


@pytest.mark.parametrize("downsample", [(1.0, 1.0), (2.0, 2.0), (3.97, 4.03)])
def test_regions_are_covered_in_both_directions(downsample):
    region = (101, 57, 333, 129)
    back = to_level_0(to_mask_region(region, downsample), downsample)
    assert back[0] <= region[0]
    assert back[1] <= region[1]
    assert back[0] + back[2] >= region[0] + region[2]
    assert back[1] + back[3] >= region[1] + region[3]
    assert to_mask_region((0, 0, 10, 10), (1.0, 1.0)) == (0, 0, 10, 10)


def test_mask_shape_covers_the_slide():
    assert mask_shape((100, 101), (1.0, 1.0)) == (100, 101)
    assert mask_shape((100, 101), (2.0, 2.0)) == (50, 51)
    assert mask_shape((1, 1), (64.0, 64.0)) == (1, 1)
