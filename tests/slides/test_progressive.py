"""A window is never kept waiting, and in the end it has every pixel."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from napari_kdseg.slides import Slide, SlideError, TileCache
from napari_kdseg.slides.pixels import decoding
from napari_kdseg.slides.pixels.progressive import MAX_WAITING
from napari_kdseg.slides.readers.backend import Level, Metadata

SIDE, TILE = 4096, 256


class Doors:
    """A pyramid whose tiles are all of one value, and cannot be had before the doors open."""

    def __init__(self, *, seconds: float = 0.0):
        levels = tuple(Level((SIDE >> i, SIDE >> i), (float(1 << i),) * 2, (TILE, TILE)) for i in range(4))
        self.metadata = Metadata("test", levels, background=(255, 255, 255), brightfield=True)
        self.open, self.seconds, self.decoded = threading.Event(), seconds, []

    def read_tile(self, level: int, row: int, column: int) -> np.ndarray:
        if level < 3:
            self.open.wait(10)
            time.sleep(self.seconds)
        self.decoded.append((level, row, column))
        return np.full((TILE, TILE, 3), 10 * (level + 1) + (row + column) % 2, np.uint8)

    def read_associated(self, name: str) -> np.ndarray:
        raise KeyError(name)

    def close(self) -> None:
        self.open.set()


@pytest.fixture
def doors():
    decoding.set_decode_threads(1)
    made = Doors()
    yield made
    made.open.set()
    decoding.set_decode_threads(None)


def told(slide: Slide) -> threading.Event:
    event = threading.Event()
    slide.arrivals.connect(event.set)
    return event


def test_coarse_at_once_and_sharp_when_it_has_arrived(doors):
    with Slide(doors, "doors") as slide:
        slide.prepare()
        event = told(slide)
        layer = slide.as_layers(patience=0.001)[0]
        coarse = layer[300:1324, 200:1224]
        assert coarse.shape == (1024, 1024, 3)
        assert set(np.unique(coarse)) <= {40, 41}  # level 3, all that is in memory
        assert not event.is_set()
        doors.open.set()
        values: set[int] = set()
        while values != {10, 11}:
            assert event.wait(10)
            event.clear()
            values = set(np.unique(layer[300:1324, 200:1224]).tolist())
        np.testing.assert_array_equal(layer[300:1324, 200:1224], slide.read(0, 300, 200, 1024, 1024))


def test_what_was_looked_at_before_is_enlarged(doors):
    with Slide(doors, "doors") as slide:
        slide.prepare()
        doors.open.set()
        slide.read(1, 0, 0, 1024, 1024)
        doors.open.clear()
        assert set(np.unique(slide.read_now(0, 0, 0, 512, 512, patience=0))) == {20}
        assert set(np.unique(slide.read_now(0, 3000, 3000, 512, 512, patience=0))) <= {40, 41}
        doors.open.set()


def test_enlarged_pixels_lie_under_the_sharp_ones(doors):
    with Slide(doors, "doors") as slide:
        overview = slide._progressive.prepare().copy()
        overview[:] = np.arange(512)[:, None, None] % 251
        slide._progressive._overview = overview
        got = slide.read_now(0, 700, 900, 600, 100, patience=0)
        np.testing.assert_array_equal(got[:, 50, 0], (np.arange(700, 1300) // 8) % 251)
        doors.open.set()


def test_what_is_quick_is_sharp_at_once():
    doors = Doors()
    doors.open.set()
    with Slide(doors, "doors") as slide:
        assert set(np.unique(slide.read_now(0, 0, 0, 512, 512, patience=5))) == {10, 11}


def test_the_newest_view_comes_first(doors):
    with Slide(doors, "doors") as slide:
        slide.prepare()
        doors.decoded.clear()
        slide.read_now(0, 0, 0, 512, 512, patience=0)
        slide.read_now(0, 2048, 2048, 512, 512, patience=0)
        event = told(slide)
        doors.open.set()
        assert event.wait(10)
        while slide._progressive._wanted:
            time.sleep(0.01)
        begun = [place[1:] for place in doors.decoded]
        newer = [begun.index(place) for place in [(8, 8), (8, 9), (9, 8), (9, 9)]]
        assert max(newer) <= 4  # at most one tile was begun before the second view was asked for
        assert newer == sorted(newer)
        assert len(set(begun)) == len(begun) == 8


def test_a_long_drag_does_not_pile_up_work(doors):
    with Slide(doors, "doors", cache=TileCache(2**31)) as slide:
        slide.prepare()
        for level in (0, 1, 2):
            side = SIDE >> level
            for y in range(0, side, 1024):
                for x in range(0, side, 512):
                    slide.read_now(level, y, x, min(1024, side - y), min(1024, side - x), patience=0)
        assert len(slide._progressive._wanted) <= MAX_WAITING
        doors.open.set()


def test_a_view_too_large_for_the_cache_is_waited_for(doors):
    doors.open.set()
    with Slide(doors, "doors", cache=TileCache(10_000)) as slide:
        assert set(np.unique(slide.read_now(0, 0, 0, 512, 512, patience=0))) == {10, 11}


def test_closing_forgets_what_waits(doors):
    slide = Slide(doors, "doors")
    slide.prepare()
    event = told(slide)
    slide.read_now(0, 0, 0, 1024, 1024, patience=0)
    threading.Timer(0.05, doors.open.set).start()
    slide.close()
    assert len(doors.decoded) < 10
    assert not event.wait(0.1)
    with pytest.raises(SlideError, match="closed"):
        slide.read_now(0, 0, 0, 10, 10)


def test_a_listener_that_fails_ends_nothing(doors, caplog):
    with Slide(doors, "doors") as slide:
        slide.prepare()

        def fail() -> None:
            raise RuntimeError("no window")

        slide.arrivals.connect(fail)
        event = told(slide)
        slide.read_now(0, 0, 0, 300, 300, patience=0)
        doors.open.set()
        assert event.wait(10)
        assert "no window" in caplog.text
        slide.arrivals.disconnect(fail)


def test_a_mapped_view_is_a_slide_too(doors):
    doors.open.set()
    with Slide(doors, "doors", mpp=0.5) as slide:
        view = slide.mapped(lambda pixels: 255 - pixels[..., :1], name="inverse", channels=1)
        assert (view.name, view.channels, view.mpp, view.background) == ("inverse", 1, (0.5, 0.5), (0,))
        assert not view.brightfield
        expected = 255 - slide.read(1, 5, 6, 300, 200)[..., :1]
        np.testing.assert_array_equal(view.read(1, 5, 6, 300, 200), expected)
        np.testing.assert_array_equal(view.read_now(1, 5, 6, 300, 200, patience=5), expected)
        with pytest.raises(TypeError, match="mapped"):
            view.__reduce__()
    with pytest.raises(SlideError, match="closed"):
        view.read(0, 0, 0, 5, 5)
