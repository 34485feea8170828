"""What napari makes of our layers: time, memory. Run by ``viewport.py`` in a process of its own; prints JSON.

``layer FILE``: random views through the layer's own slicing. ``pan FILE``: 500 views on a giant slide, resident memory
beyond napari. ``twelve FILE``: twelve slides at once. ``window FILE``: first picture and next field, in a real window.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import imagecodecs
import numpy as np
import psutil

from napari_kdseg.slides import Slide, TileCache, open_slide
from napari_kdseg.slides.pixels.decoding import set_decode_threads
from napari_kdseg.slides.pixels.progressive import PATIENCE
from viewport_slides import covered_tiles, random_views

SIDE = 1024


def layer(path: Path, views: int = 80, rounds: int = 3) -> dict[str, Any]:
    """Time views through a real layer, two decode threads, whole chunks, and the limit of what is shown."""
    from napari.layers import Image

    set_decode_threads(2)
    shape = (40_000, 40_000)
    places = random_views(views, shape, levels=5)  # napari keeps the coarsest level: it is not read again
    tiles = covered_tiles(path, places)
    ratios, seconds = [], []
    for _ in range(rounds):
        with open_slide(path, threads=2, cache=TileCache(256 * 2**20)) as slide:
            shown = Image(slide.as_layers(), multiscale=True, rgb=True)
            ours = limit = 0.0
            for (level, y, x), under in zip(places, tiles, strict=True):
                start = time.perf_counter()
                for data in under:
                    imagecodecs.jpeg8_decode(data, colorspace="ycbcr", outcolorspace="rgb")
                middle = time.perf_counter()
                look(shown, level, y, x)
                ours, limit = ours + time.perf_counter() - middle, limit + middle - start
                assert shown.data_level == level
            ratios.append(ours / limit)
            seconds.append([round(ours, 3), round(limit, 3)])
    return {"layer_over_limit": round(median(ratios), 3), "seconds": seconds[-1]}


def look(shown: Any, level: int, y: int, x: int) -> None:
    """Show a view of ``SIDE`` pixels of one level, as napari's canvas asks a layer for it on every draw."""
    factor = 2.0**level
    corners = np.array([[y, x], [y + SIDE - 1, x + SIDE - 1]]) * factor
    shown._update_draw(factor, corners, (SIDE - 64, SIDE - 64))


def pan(path: Path, views: int = 500) -> dict[str, Any]:
    """Walk over a slide of 100 000 x 80 000 px in half views, at all magnifications."""
    from napari.layers import Image

    process = psutil.Process()
    Image(np.zeros((64, 64, 3), np.uint8), rgb=True)
    before, most = process.memory_info().rss, 0
    with open_slide(path) as slide:
        slide.prepare()
        shown = Image(slide.as_layers(), multiscale=True, rgb=True)
        random = np.random.default_rng(0)
        y, x, level = 40_000, 50_000, 0
        for step in range(views):
            if step % 50 == 0:
                level = step // 50 % 5
                y, x = (int(random.integers(0, (side >> level) - SIDE)) for side in slide.shape)
            side_y, side_x = (side >> level for side in slide.shape)
            y = int(np.clip(y + random.integers(-SIDE, SIDE), 0, side_y - SIDE))
            x = int(np.clip(x + random.integers(-SIDE, SIDE), 0, side_x - SIDE))
            look(shown, level, y, x)
            most = max(most, process.memory_info().rss)
    return {"pan_rss_mb": round((most - before) / 2**20), "napari_rss_mb": round(before / 2**20)}


def twelve(path: Path) -> dict[str, Any]:
    """Look around in twelve slides that are open at once; memory of the whole process, napari included."""
    from napari.layers import Image

    process = psutil.Process()
    Image(np.zeros((64, 64, 3), np.uint8), rgb=True)
    copies = [path.with_name(f"copy-{number}{path.suffix}") for number in range(12)]
    for copy in copies:
        shutil.copy(path, copy)
    slides = [open_slide(copy) for copy in copies]
    layers = []
    for slide in slides:
        slide.prepare()
        layers.append(Image(slide.as_layers(), multiscale=True, rgb=True))
    for level, y, x in random_views(10, slides[0].shape, levels=5):
        for shown in layers:
            look(shown, level, y, x)
    figure = {"twelve_slides_rss_mb": round(process.memory_info().rss / 2**20)}
    for slide, copy in zip(slides, copies, strict=True):
        slide.close()
        copy.unlink()
    return figure


def window(path: Path) -> dict[str, Any]:
    """Open a slide in a real window; seconds to the first sharp picture, milliseconds to the next field."""
    import napari
    from qtpy.QtCore import QCoreApplication

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1500, 900)
    settle = QCoreApplication.processEvents
    for _ in range(20):
        settle()

    longest, arrived = 0.0, threading.Event()

    reads: list[float] = []

    def timed(read: Any) -> Any:
        def reading(*box: int) -> Any:
            start = time.perf_counter()
            pixels = read(*box)
            reads.append(1000 * (time.perf_counter() - start))
            return pixels

        return reading

    def until_sharp(slide: Slide, shown: Any) -> None:
        nonlocal longest
        sharp = False
        while True:
            start = time.perf_counter()
            settle()
            viewer.window._qt_viewer.canvas._scene_canvas.native.repaint()
            settle()
            longest = max(longest, time.perf_counter() - start)
            if not slide.waiting and sharp:
                return
            sharp = not slide.waiting  # one more look when nothing is to come any more
            if not sharp:
                arrived.wait(0.2)
            arrived.clear()
            shown.refresh()

    start = time.perf_counter()
    slide = open_slide(path)
    slide.prepare()
    slide.arrivals.connect(arrived.set)
    levels = slide.as_layers(patience=PATIENCE)
    for level in levels:
        level._read = timed(level._read)
    shown = viewer.add_image(levels, multiscale=True, rgb=True)
    until_sharp(slide, shown)
    first = time.perf_counter() - start
    fields = []
    viewer.scene.camera.zoom = 1.0
    for number in range(8):
        start = time.perf_counter()
        viewer.scene.camera.center = (0, 5000 + 3000 * number, 7000 + 2500 * number)
        until_sharp(slide, shown)
        fields.append(1000 * (time.perf_counter() - start))
    viewer.close()
    slide.close()
    return {
        "first_picture_s": round(first, 3),
        "next_field_ms": round(median(fields[1:])),
        "next_fields_ms": [round(field) for field in fields],
        "longest_read_ms": round(max(reads), 1),
        "longest_draw_ms": round(1000 * longest),
    }


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]))))
