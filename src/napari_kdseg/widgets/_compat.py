"""What this plugin needs that public interfaces do not offer.

Checked with napari 0.9.2, vispy 0.17, torch 2.15, triton 3.9.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers._multiscale_data import MultiScaleData

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari.layers import Layer
    from napari.viewer import Viewer
    from qtpy.QtWidgets import QWidget
    from vispy.visuals import Visual

SLICING_DEPTH = 10
"""Calls between a read of a level and napari's slicing, at most."""


def as_multiscale(levels: Sequence[Any]) -> MultiScaleData:
    """Wrap the levels of a pyramid as napari does itself: its Labels would unwrap a plain list of one level."""
    return MultiScaleData(levels)


def real_viewer(viewer: Viewer) -> Viewer:
    """Return the viewer behind the proxy that napari hands to plugin widgets.

    Needed as a dictionary key: a proxy dies with the widget that was given it, the viewer does not.
    """
    return getattr(viewer, "__wrapped__", viewer)


def when_window_closes(viewer: Viewer, action: Callable[[], object]) -> None:
    """Have ``action``, a method of a QObject, called once the window of ``viewer`` is gone. napari tells nobody."""
    viewer.window._qt_window.destroyed.connect(action)


def canvas_widget(viewer: Viewer) -> QWidget:
    """Return the Qt widget that the layers of ``viewer`` are drawn on, to lay things over it and follow its mouse."""
    native: QWidget = viewer.window._qt_viewer.canvas.native
    return native


def before_every_draw(viewer: Viewer, callback: Callable[[Any], None]) -> None:
    """Call a bound method before the canvas draws, as long as its object lives; layers have their visuals by then."""
    viewer.window._qt_viewer.canvas.events.draw.connect(callback, position="first")


def redraw(viewer: Viewer) -> None:
    """Draw the canvas again soon, with the layers sliced as they are."""
    canvas_widget(viewer).update()


def visuals_of(viewer: Viewer, layer: Layer) -> list[Visual]:
    """Return what draws ``layer``, down to the visuals that are one program each: napari exchanges them at any time."""
    drawn = viewer.window._qt_viewer.canvas.layer_to_visual.get(layer)
    return [] if drawn is None else _leaves(drawn.node)


def _leaves(visual: Any) -> list[Visual]:
    parts = getattr(visual, "_subvisuals", None)
    return [visual] if parts is None else [leaf for part in parts for leaf in _leaves(part)]


def napari_is_slicing() -> bool:
    """Tell whether the pixels asked for are to be drawn: the call comes from napari's slicing of a layer.

    Other readers of ``layer.data`` (plugins, the console) compute with the pixels and must get them as they are. Should
    napari rename its modules, everybody does, and the window waits for tiles.
    """
    frame = sys._getframe(1)
    for _ in range(SLICING_DEPTH):
        name = frame.f_globals.get("__name__", "")
        if name.startswith("napari.layers.") and name.endswith("._slice"):
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False


@cache
def keep_llvms_apart() -> Any:
    """Make it safe to import torch after the window has drawn.

    On Linux, Mesa's drivers (software rendering, AMD) and triton, which torchvision imports, each bring an LLVM of
    their own. Loaded after Mesa's, triton's binds to the wrong symbols and the process dies of a segmentation
    fault. Loading it once with ``RTLD_DEEPBIND`` keeps it to its own; the handle must stay alive.
    """
    if not sys.platform.startswith("linux"):
        return None
    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None or "triton" in sys.modules:
        return None
    libraries = sorted((Path(spec.origin).parent / "_C").glob("libtriton*.so"))
    mode = os.RTLD_NOW | os.RTLD_DEEPBIND
    return [ctypes.CDLL(str(library), mode=mode) for library in libraries]
