from __future__ import annotations

import numpy as np
import pytest

from napari_kdseg.slides import LevelArray, SlideError, open_slide

FORMATS = [
    "ome-zarr-0.4",
    "ome-zarr-0.5",
    "ome-tiff-subifd",
    "tiff-pages",
    "tiff-strips",
    "tiff-planar",
    "png",
]


def random_key(random: np.random.Generator, shape: tuple[int, ...]) -> tuple:
    """Integers, slices with and without steps, backwards, beyond the edge, empty; of Python and of numpy."""
    key: list = []
    for side in shape:
        kind = random.integers(6)
        first, last = (random.integers(-side, 2 * side, 2)).tolist()
        if kind == 0:
            key.append(np.int64(random.integers(-side, side)))
        elif kind == 1:
            key.append(slice(None))
        elif kind == 2:
            key.append(slice(first, last, int(random.integers(2, 40))))
        elif kind == 3:
            key.append(slice(last, first, -int(random.integers(1, 40))))
        else:
            key.append(slice(np.int64(min(first, last)), np.int64(max(first, last)), np.int64(1)))
    return tuple(key)


@pytest.mark.parametrize("name", FORMATS)
def test_random_slices_equal_numpy(name, files, pyramid):
    with open_slide(files[name]) as slide:
        layers = slide.as_layers()
        references = pyramid if name in FORMATS[:4] else pyramid[:1]
        assert [layer.shape for layer in layers] == [reference.shape for reference in references]
        random = np.random.default_rng(1)
        for layer, reference in zip(layers, references, strict=True):
            assert layer.dtype == np.uint8
            np.testing.assert_array_equal(np.asarray(layer), reference)
            for _ in range(25):
                key = random_key(random, reference.shape)[: random.integers(1, 4)]
                np.testing.assert_array_equal(np.asarray(layer[key]), reference[key], err_msg=str(key))
        assert slide.bad_tiles == []


@pytest.fixture
def small() -> LevelArray:
    pixels = np.arange(5 * 7 * 3, dtype=np.uint16).reshape(5, 7, 3)
    return LevelArray(lambda y, x, h, w: pixels[y : y + h, x : x + w], (5, 7, 3), np.uint16, (4, 4, 3))


def test_describes_itself(small):
    assert (small.ndim, small.size, small.nbytes, len(small)) == (3, 105, 210, 5)
    assert small.chunks == (4, 4, 3)
    assert small[..., 0].shape == (5, 7)
    assert np.asarray(small, dtype=np.float32).dtype == np.float32


def test_one_channel_stays_lazy(small):
    channel = small[:, :, np.int64(1)]
    assert isinstance(channel, LevelArray)
    np.testing.assert_array_equal(channel[1:3, 2], np.asarray(small)[1:3, 2, 1])


@pytest.mark.parametrize(
    "key", [5, (0, 7), (0, 0, 3), (0, 0, 0, 0), (..., ...), "y", (slice(None), slice(None), 3)]
)
def test_what_is_not_there_is_an_index_error(small, key):
    with pytest.raises(IndexError):
        small[key]


def test_refuses_to_fill_the_memory():
    def never(*box):
        raise AssertionError("read although it is too large")

    huge = LevelArray(never, (100_000, 80_000, 3), np.uint8, (512, 512, 3))
    with pytest.raises(SlideError, match=r"22\.4 GB"):
        np.asarray(huge)
    with pytest.raises(SlideError, match="coarser level"):
        huge[:, :50_000]


def test_napari_takes_the_levels_as_they_are(files):
    layers = pytest.importorskip("napari.layers")
    with open_slide(files["ome-tiff-subifd"]) as slide:
        layer = layers.Image(slide.as_layers(), multiscale=True, rgb=True)
        assert layer.multiscale
        assert list(layer.data.shapes) == [level.shape for level in slide.as_layers()]
