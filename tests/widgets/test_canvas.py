"""What the canvas shows, pixel by pixel, when a slide was opened, zoomed and moved: the level napari chose, sharp."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from napari.layers import Image

from napari_kdseg.slides import Slide, TileCache
from napari_kdseg.slides.readers.backend import Level, Metadata
from napari_kdseg.widgets import binding as layers
from napari_kdseg.widgets.binding import session_of

WAIT = 20_000
REAL = (
    "CMU-1-Small-Region.svs",
    "dicom-cmu-1-small-region",
    "TCGA-CR-7395-01A-01-TS1.svs",
    "test3-TRITC-560.ndpi",
    "boxes-generic-pyramid.tiff",
    "XYC-coordinate-grid-jpeg.ome.tiff",
)
RAMPS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "magenta": (1, 0, 1), "cyan": (0, 1, 1),
         "yellow": (1, 1, 0)}  # fmt: skip
"""Colours of the channels at their brightest."""


class Channels:
    """Four channels of 16 bits and three levels; tiles are decoded while the gate is open."""

    def __init__(self, side: int = 1024, count: int = 4):
        levels = tuple(Level((side >> i, side >> i), (float(1 << i),) * 2, (256, 256)) for i in range(3))
        names = tuple(f"marker {index}" for index in range(count))
        self.metadata = Metadata(
            "test", levels, channels=count, dtype=np.dtype("uint16"), channel_names=names, brightfield=False,
            fingerprint="channels",
        )  # fmt: skip
        random = np.random.default_rng(0)
        self.pixels = [random.integers(0, 60_000, (*level.shape, count), np.uint16) for level in levels]
        self.gate = threading.Event()
        self.gate.set()

    def read_tile(self, level: int, row: int, column: int) -> np.ndarray:
        self.gate.wait(WAIT / 1000)
        return self.pixels[level][row * 256 : (row + 1) * 256, column * 256 : (column + 1) * 256].copy()

    def read_associated(self, name: str) -> np.ndarray:
        raise KeyError(name)

    def close(self) -> None:
        self.gate.set()


@pytest.fixture
def channels():
    backend = Channels()
    slide = Slide(backend, "channels.tif", cache=TileCache())
    made = layers.slide_layers(slide)
    slide._cache.resize(0)
    slide._cache.resize(2**28)
    yield slide, backend, made
    slide.close()


def shown(viewer) -> list[Image]:
    return [
        layer for layer in viewer.layers if layer.metadata.get(layers.ROLE_KEY) == "slide" and layer.visible
    ]


def expected(viewer, shape: tuple[int, int]) -> np.ndarray:
    """The colour of every screen pixel: that of the level's pixel under its middle; NaN off the slide and on edges."""
    (first, *_), mpp = shown(viewer), np.asarray(shown(viewer)[0].scale)
    source = first.metadata[layers.SOURCE_KEY]
    level = source.levels[first.data_level]
    camera = viewer.scene.camera
    places = []
    for axis in range(2):
        world = camera.center[-2:][axis] + (np.arange(shape[axis]) + 0.5 - shape[axis] / 2) / camera.zoom
        places.append((world / mpp[axis] + 0.5) / level.downsample[axis])
    inside = [(at > 0) & (at < side) & clear(at) for at, side in zip(places, level.shape, strict=True)]
    places = [np.floor(at).astype(int) for at in places]
    (rows, columns), found = inside, np.full((*shape, 3), np.nan)
    top, left = places[0][rows][0], places[1][columns][0]
    height, width = places[0][rows][-1] + 1 - top, places[1][columns][-1] + 1 - left
    pixels = source.read(first.data_level, top, left, height, width)
    pixels = pixels[places[0][rows] - top][:, places[1][columns] - left].astype(float)
    found[np.ix_(rows, columns)] = pixels if first.rgb else _mixed(viewer, source, pixels)
    return found


def clear(at: np.ndarray) -> np.ndarray:
    """Places that are in one pixel also when the graphics card rounds, with its 24 bits, what lies in thousands."""
    return np.abs(at - np.round(at)) > 1e-2


def _mixed(viewer, source: Slide, pixels: np.ndarray) -> np.ndarray:
    """Channels, each from black to its colour between its limits, added up."""
    total = np.zeros((*pixels.shape[:2], 3))
    for layer in shown(viewer):
        index = next(i for i, name in enumerate(source.channel_names) if layer.name.endswith(f": {name}"))
        low, high = layer.contrast_limits
        amount = np.clip((pixels[..., index] - low) / (high - low), 0, 1)
        total += amount[..., None] * RAMPS[layer.colormap.name]
    return np.clip(total, 0, 1) * 255


def wrong(viewer) -> float:
    """Share of the screen pixels, of those on the slide, that are other than those of the level."""
    viewer.canvas.overlays.scale_bar.visible = viewer.canvas.overlays.text.visible = False
    picture = viewer.screenshot(canvas_only=True, flash=False)[..., :3]
    there = expected(viewer, picture.shape[:2])
    on_slide = ~np.isnan(there[..., 0])
    # half a grey value for every channel that the graphics card rounds, one for their sum
    off = np.abs(picture - there).max(axis=2) > 1 + len(shown(viewer)) / 2
    return float(off[on_slide].mean())


def look(viewer, slide: Slide, level: int, place: float) -> None:
    """One screen pixel for every pixel of ``level``; off their edges by a quarter, so that it is clear which one."""
    mpp = np.asarray(slide.mpp or (1.0, 1.0))
    downsample = np.asarray(slide.levels[level].downsample)
    viewer.scene.camera.zoom = 1 / (mpp[0] * downsample[0])
    odd = np.asarray(viewer.canvas.size) % 2
    corner = np.floor(place * np.asarray(slide.levels[level].shape)) + 0.25 + odd / 2
    viewer.scene.camera.center = (corner * downsample - 0.5) * mpp


def arrive_unheard(viewer, slide: Slide, backend: Channels) -> None:
    """Hold the tiles back until napari has drawn the first layer, and let them arrive before it tells us of it."""
    backend.gate.clear()

    def arrive(_event) -> None:
        backend.gate.set()
        end = time.monotonic() + WAIT / 1000
        while slide.waiting or slide._progressive._owed:  # until all was told, to nobody
            assert time.monotonic() < end
            time.sleep(0.001)

    viewer.layers.events.inserted.connect(arrive)  # called before ours, which the session connects later


def _opens_zooms_and_pans(viewer, qtbot, slide: Slide) -> None:
    for layer in shown(viewer):
        layer.interpolation2d = "nearest"
    for level, place in ((None, 0.0), (0, 0.5), (0, 0.3)):
        if level is not None:
            look(viewer, slide, level, place)
        qtbot.waitUntil(lambda: not slide.waiting and wrong(viewer) == 0, timeout=WAIT)


@pytest.mark.parametrize("name", REAL)
def test_a_real_slide(viewer, qtbot, real_data, tmp_path, name):
    if not (real_data / "slides" / name).exists():
        pytest.skip(f"the slide {name} is not there")
    session = session_of(viewer)
    session.open_slide(str(real_data / "slides" / name))
    qtbot.waitUntil(lambda: session.slide is not None, timeout=WAIT)
    _opens_zooms_and_pans(viewer, qtbot, session.slide)


def test_many_channels(viewer, qtbot, channels):
    slide, backend, made = channels
    arrive_unheard(viewer, slide, backend)
    layers.show_slide(viewer, made)
    assert len(shown(viewer)) == 4
    _opens_zooms_and_pans(viewer, qtbot, slide)
