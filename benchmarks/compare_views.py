"""Frames a second while the divider of the curtain, or the lens, is moved over two filled masks.

    python benchmarks/compare_views.py [--quick]

It opens a window (on a machine without a screen: ``xvfb-run -s "-screen 0 1600x1100x24" python ...``), with a canvas of
1200 x 900 pixels, a slide and two filled masks of 8192 x 8192 under it. A frame counts when it has been drawn and what
Qt makes of it has been done. ``redraw_fps`` is the same canvas drawn again with nothing moved, in the same run: what
napari, OpenGL and Qt take by themselves; on a busy machine compare the milliseconds of processors a frame
(``*_cpu_ms``), which other programs change least. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIDE, CANVAS = 8192, (1200, 900)
TARGETS = {"curtain_fps": "at least 15", "lens_fps": "at least 15"}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="30 frames instead of 150")
    print(json.dumps({**measure(parser.parse_args().quick), "targets": TARGETS}))
    return 0


def measure(quick: bool = False) -> dict[str, Any]:
    """Open a window and move curtain and lens; return the figures."""
    import napari

    frames = 30 if quick else 150
    viewer = napari.Viewer()
    try:
        views = prepare(viewer)
        draw = drawing(viewer)
        width = CANVAS[0]

        def curtain(step: int) -> None:
            views.comparison.divider.dragged.emit(0.1 + 0.8 * (step % frames) / frames)

        def lens(step: int) -> None:
            views.comparison._events.moved.emit(100 + (7 * step) % (width - 200), 450)

        figures = rate("redraw", lambda _step: None, draw, frames)
        for view, move in (("curtain", curtain), ("lens", lens)):
            views.show(view)
            figures |= rate(view, move, draw, frames)
    finally:
        viewer.close()
    return {"quick": quick, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), **figures}


def prepare(viewer: Any) -> Any:
    """Put a slide and two filled masks on a canvas of the size; return the views."""
    from qtpy.QtWidgets import QApplication

    from napari_kdseg.masks.pyramid import MaskPyramid
    from napari_kdseg.slides import LevelArray
    from napari_kdseg.widgets._compat import canvas_widget
    from napari_kdseg.widgets.binding import session_of
    from napari_kdseg.widgets.layers import overlays
    from napari_kdseg.widgets.layers.placement import ROLE_KEY
    from napari_kdseg.widgets.views.views import views_of

    random = np.random.default_rng(0)
    slide = random.integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    levels = [slide[::step, ::step] for step in (1, 2, 4, 8)]
    viewer.add_image(levels, rgb=True, multiscale=True, metadata={ROLE_KEY: "slide"})

    def pyramid(role: str) -> MaskPyramid:
        blocks = random.integers(0, 3, (SIDE // 64, SIDE // 64)).astype(np.uint8)
        mask = np.kron(blocks, np.ones((64, 64), np.uint8))
        arrays = [mask[::step, ::step] for step in (1, 2, 4, 8)]
        made = tuple(
            LevelArray(
                lambda y, x, h, w, one=one: one[y : y + h, x : x + w], one.shape, one.dtype, (512, 512)
            )
            for one in arrays
        )
        colours = ((0, 0, 0), (0, 158, 115), (230, 159, 0))
        downsamples = tuple((float(step), float(step)) for step in (1, 2, 4, 8))
        classes = ("background", "gland", "stroma")
        return MaskPyramid(Path(role), role, made, downsamples, classes, colours, {"made_by": {}})

    session = session_of(viewer)
    session.view_settings.outline = False
    overlays.show_found(session, {role: pyramid(role) for role in ("teacher", "student")})
    canvas_widget(viewer).setFixedSize(*CANVAS)
    viewer.fit_to_view()
    viewer.scene.camera.zoom *= 3
    for _ in range(50):
        QApplication.processEvents()
    return views_of(session)


def drawing(viewer: Any) -> Callable[[], None]:
    """A function that draws the canvas once and returns when Qt has shown it."""
    from qtpy.QtWidgets import QApplication

    from napari_kdseg.widgets._compat import before_every_draw, redraw

    class Counter:
        drawn = 0

        def count(self, _event: object) -> None:
            self.drawn += 1

    counter = Counter()
    before_every_draw(viewer, counter.count)

    def draw() -> None:
        before = counter.drawn
        redraw(viewer)
        while counter.drawn == before:
            QApplication.processEvents()

    return draw


def rate(name: str, move: Callable[[int], None], draw: Callable[[], None], frames: int) -> dict[str, float]:
    """Frames a second of ``move`` and ``draw``, and milliseconds of processors a frame; the first few do not count."""
    start = processors = 0.0
    for step in range(-5, frames):
        if step == 0:
            start, processors = time.perf_counter(), time.process_time()
        move(step)
        draw()
    passed, used = time.perf_counter() - start, time.process_time() - processors
    return {f"{name}_fps": round(frames / passed, 1), f"{name}_cpu_ms": round(1000 * used / frames, 1)}


if __name__ == "__main__":
    raise SystemExit(main())
