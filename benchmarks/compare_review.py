"""How long a person waits in a review: next disagreement, first row of the gallery, a list of 200,000 regions.

On a JPEG pyramid with masks that are made here, in a real window (needs a display or xvfb-run). ``--quick`` takes a
smaller slide and fewer regions. Prints one JSON object last:

``next_disagreement_ms`` from the key to sharp pixels on screen, tiles cached; ``next_disagreement_cold_ms`` the same
with neither tiles in memory nor the file in the system's cache; ``gallery_first_row_ms`` four crops of 256 px with
three masks, tiles cached, until drawn; ``list_200000_ms`` ranking, filtering and drawing the list.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from napari_kdseg.comparison.regions.table import COLUMNS, Compared, RegionTable
from napari_kdseg.demo import machine
from napari_kdseg.masks import MaskPyramid, MaskSpec, MaskStore, open_masks, plan_tiles
from napari_kdseg.slides import open_slide
from napari_kdseg.slides.pixels.cache import default_cache
from viewport_slides import write_slide

TARGETS = {
    "next_disagreement_ms": "at most 250",
    "next_disagreement_cold_ms": "at most 1000",
    "gallery_first_row_ms": "at most 500",
}
CLASSES, COLOURS = ("background", "gland"), ((0, 0, 0), (0, 158, 115))
DOWNSAMPLE = 4
LONGEST_S = 60.0


def review_figures(*, quick: bool) -> dict[str, Any]:
    """Measure everything; the window is closed afterwards."""
    side, count = (16_000, 12) if quick else (40_000, 40)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KDSEG_HOME"] = str(Path(folder) / "home")
        path = write_slide(Path(folder) / "slide.tif", (side, side), 256)
        table = planted(side, count)
        masks = write_masks(path, Path(folder) / "slide.ome.zarr", table)
        return in_window(path, masks, table) | {"list_200000_ms": list_ms()}


def planted(side: int, count: int) -> RegionTable:
    """Regions of 100 to 600 px, far from each other."""
    random = np.random.default_rng(0)
    across = int(np.ceil(np.sqrt(count)))
    step = side // across
    places = [(row * step, column * step) for row in range(across) for column in range(across)][:count]
    rows = np.zeros(count, COLUMNS)
    for number, (y, x) in enumerate(places):
        height, width = random.integers(25, 150, 2) * DOWNSAMPLE
        top, left = y + step // 2, x + step // 2
        rows[number]["region"] = number
        for name, value in zip(
            ("y0", "x0", "y1", "x1"), (top, left, top + height, left + width), strict=True
        ):
            rows[number][name] = value
        rows[number]["inside_y"], rows[number]["inside_x"] = top + height // 2, left + width // 2
        rows[number]["area_px"] = height * width // DOWNSAMPLE**2
    rows["kind"], rows["first_class"], rows["area_mm2"] = 1, 1, rows["area_px"] * DOWNSAMPLE**2 * 0.25e-6
    return RegionTable(rows, Compared("teacher", "student", CLASSES, (DOWNSAMPLE, DOWNSAMPLE), (0.5, 0.5)))


def write_masks(path: Path, store_path: Path, table: RegionTable) -> dict[str, MaskPyramid]:
    """Write three masks: all regions, none of them, and every other one."""
    with open_slide(path) as slide:
        shape = tuple(side // DOWNSAMPLE for side in slide.shape)
        store = MaskStore(store_path, slide)
        for name, rows in (
            ("teacher", table.rows),
            ("student", table.rows[:0]),
            ("reference", table.rows[::2]),
        ):
            values = np.zeros(shape, np.uint8)
            for row in rows:
                y0, x0, y1, x1 = (int(row[edge]) // DOWNSAMPLE for edge in ("y0", "x0", "y1", "x1"))
                values[y0:y1, x0:x1] = 1
            mask = MaskSpec("labels", name, "class", CLASSES, COLOURS)
            downsample = (float(DOWNSAMPLE), float(DOWNSAMPLE))
            with store.begin((mask,), shape=shape, downsample=downsample, tile=512, made_by={}) as writer:
                for tile in plan_tiles(shape, None, 512, 0):
                    block = values[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
                    writer.write_tile(tile, [block])
                writer.finish(None)
    return open_masks(store_path)


def in_window(path: Path, masks: dict[str, MaskPyramid], table: RegionTable) -> dict[str, Any]:
    """Walk through all regions there and back in a window with slide, masks and review."""
    import napari

    from napari_kdseg.widgets.binding import session_of
    from napari_kdseg.widgets.layers import overlays
    from napari_kdseg.widgets.layers.placement import find
    from napari_kdseg.widgets.review.box import ReviewBox
    from napari_kdseg.widgets.view import settle

    viewer = napari.Viewer(title="KD Seg")
    viewer.window.resize(1500, 940)
    session = session_of(viewer)
    box = ReviewBox(session, viewer)
    viewer.window.add_dock_widget(box, name="review", area="right")
    session.open_slide(str(path))
    wait(lambda: session.slide is not None)
    session.store = next(iter(masks.values())).path.parent.parent
    overlays.show_found(session, overlays.read_store(session.store))
    box.show_regions(table, {name: masks[name] for name in ("teacher", "student", "reference")})
    settle(viewer=viewer)
    layer = find(viewer, "slide")
    cold, warm = [], []
    for _ in range(len(table)):
        default_cache().resize(0)
        default_cache().resize(512 * 2**20)
        leave_system_cache(path)
        cold.append(next_ms(viewer, layer, "Alt-Right"))
        settle(0.3, viewer)
    for number in range(len(table)):
        box.go(table.rows["region"][number])
        settle(0.3, viewer)
    for _ in range(len(table) - 1):
        warm.append(next_ms(viewer, layer, "Alt-Left"))
    gallery = [gallery_ms(viewer, box) for _ in range(8)]
    viewer.close()
    return {
        "next_disagreement_ms": round(median(warm)),
        "next_disagreement_cold_ms": round(median(cold)),
        "gallery_first_row_ms": round(median(gallery)),
        "next_disagreement_each_ms": [round(ms) for ms in warm],
        "next_disagreement_cold_each_ms": [round(ms) for ms in cold],
        "gallery_first_row_each_ms": [round(ms) for ms in gallery],
    }


def leave_system_cache(path: Path) -> None:
    """Have the system read the file from its disk again, where it can be told to."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def next_ms(viewer: Any, layer: Any, key: str) -> float:
    """Press a key; milliseconds until the pixels on screen are those of the slide, and drawn."""
    from qtpy.QtCore import QEvent, Qt
    from qtpy.QtGui import QKeyEvent
    from qtpy.QtWidgets import QApplication

    from napari_kdseg.widgets.layers.placement import SOURCE_KEY

    canvas = viewer.window._qt_viewer.canvas.native
    code = getattr(Qt.Key, f"Key_{key.removeprefix('Alt-')}")
    start = time.perf_counter()
    QApplication.sendEvent(canvas, QKeyEvent(QEvent.Type.KeyPress, code, Qt.KeyboardModifier.AltModifier))
    canvas.repaint()  # napari asks for pixels when it draws
    if layer.metadata[SOURCE_KEY].waiting or not is_sharp(layer):
        wait(lambda: not layer.metadata[SOURCE_KEY].waiting and is_sharp(layer), draw=canvas.repaint)
    return 1000 * (time.perf_counter() - start)


def is_sharp(layer: Any) -> bool:
    """Whether what the layer shows is what the slide holds there."""
    (top, left), (bottom, right) = layer.corner_pixels[:, :2]
    shown = np.asarray(layer._slice.image.view)
    held = layer.data[layer.data_level][top : bottom + 1, left : right + 1]
    common = tuple(slice(min(a, b)) for a, b in zip(shown.shape[:2], held.shape[:2], strict=True))
    return abs(shown.shape[0] - held.shape[0]) <= 1 and np.array_equal(shown[common], held[common])


def gallery_ms(viewer: Any, box: Any) -> float:
    """Milliseconds until the crops of the first row on screen are read and drawn, none of them kept."""
    from napari_kdseg.widgets.view import settle

    settle(0.3, viewer)
    loader, number = box.gallery.loader, box.model.number_at(box.gallery.rows_on_screen()[0])
    start = time.perf_counter()
    loader.read_with(loader._read)
    box.gallery.viewport().update()
    wait(lambda: number in loader, draw=box.gallery.viewport().repaint)
    return 1000 * (time.perf_counter() - start)


def list_ms() -> float:
    """Milliseconds to rank and filter 200,000 regions and draw the list."""
    from qtpy.QtWidgets import QApplication

    from napari_kdseg.widgets.review.arrangement import Wish, arrange, verdicts
    from napari_kdseg.widgets.review.model import RegionModel
    from napari_kdseg.widgets.review.region_list import RegionList

    random = np.random.default_rng(0)
    rows = np.zeros(200_000, COLUMNS)
    rows["region"], rows["kind"], rows["gap"] = np.arange(len(rows)), 1, random.random(len(rows))
    rows["area_px"] = random.integers(1, 10_000, len(rows))
    rows["area_mm2"] = rows["area_px"] * 1e-6
    table = RegionTable(rows, Compared("teacher", "student", CLASSES, (1.0, 1.0), (1.0, 1.0)))
    model = RegionModel()
    view = RegionList(model)
    view.resize(360, 400)
    view.show()
    QApplication.processEvents()
    start = time.perf_counter()
    said = verdicts(table, {})
    model.set_regions(arrange(table, Wish(by="gap", min_area=0.001, unmarked=True), said), said)
    view.viewport().repaint()
    elapsed = 1000 * (time.perf_counter() - start)
    view.close()
    return round(elapsed)


def wait(until: Callable[[], bool], draw: Callable[[], None] = lambda: None) -> None:
    """Let the window work until something is so, and drawn."""
    from qtpy.QtWidgets import QApplication

    stop = time.perf_counter() + LONGEST_S
    while not until():
        if time.perf_counter() > stop:
            raise TimeoutError("The window did not come to rest within a minute.")
        QApplication.processEvents()
    draw()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smaller slide and fewer regions")
    quick = parser.parse_args().quick
    figures = review_figures(quick=quick)
    print(json.dumps({"quick": quick, **figures, "targets": TARGETS, "machine": machine()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
