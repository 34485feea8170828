"""Where a viewer looks, in level-0 pixels of its slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_kdseg.slides import Slide

Region = tuple[int, int, int, int]
"""Upper edge, left edge, height and width."""

SHARE = 1 / 3
"""Of the canvas that an object fills, in the direction in which it comes nearer to the canvas's edge."""
SMALLEST_UM, SMALLEST_PX = 40.0, 80.0
"""What is smaller is looked at as if it were so large: more enlarged there is nothing more to see."""


def pane_size(viewer: Viewer) -> np.ndarray:
    """Height and width, in pixels of the screen, of what shows a place: the canvas, or one pane of its grid."""
    size, grid = np.asarray(viewer.canvas.size, float), viewer.canvas.grid
    if not grid.enabled:
        return size
    counts = np.asarray(grid.actual_shape(viewer.layers))
    gap = grid.spacing if grid.spacing >= 1 else int(grid.spacing * (size / counts).mean())
    return (size - gap * (counts - 1)) / counts


def visible_region(viewer: Viewer, slide: Slide) -> Region:
    """What of the slide is on screen, cut to the slide.

    Computed from the camera and the canvas: since napari 0.9 ``corner_pixels`` is grown to whole chunks.
    """
    mpp = np.asarray(slide.mpp or (1.0, 1.0))
    centre = np.asarray(viewer.scene.camera.center[-2:]) / mpp
    half = pane_size(viewer) / viewer.scene.camera.zoom / 2 / mpp
    height, width = slide.levels[0].shape
    top, left = np.clip(np.floor(centre - half), 0, (height, width)).astype(int)
    bottom, right = np.clip(np.ceil(centre + half), 0, (height, width)).astype(int)
    return int(top), int(left), int(bottom - top), int(right - left)


def go_to(
    viewer: Viewer, slide: Slide | None, region: Region | tuple[float, float, float, float] | None = None
) -> None:
    """Centre ``region`` and zoom so that it fills the canvas; without one, what was scanned, or all there is."""
    if region is None and slide is not None:
        region = slide.bounds
    if slide is None or region is None:
        viewer.fit_to_view()
        return
    top, left, height, width = region
    mpp = np.asarray(slide.mpp or (1.0, 1.0))
    size = np.asarray((height, width)) * mpp
    viewer.scene.camera.center = (np.asarray((top + height / 2, left + width / 2)) - 0.5) * mpp
    viewer.scene.camera.zoom = float((pane_size(viewer) / size).min())


def fly_to(viewer: Viewer, slide: Slide, box: Region) -> None:
    """Centre an object, so large that it fills about a third of the canvas."""
    y, x, height, width = box
    least = np.full(2, SMALLEST_PX) if slide.mpp is None else SMALLEST_UM / np.asarray(slide.mpp)
    tall, wide = np.maximum((height, width), least) / SHARE
    go_to(viewer, slide, (y + height / 2 - tall / 2, x + width / 2 - wide / 2, tall, wide))
