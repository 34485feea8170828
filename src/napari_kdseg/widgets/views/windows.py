"""Windows in layers: the part of the canvas that a layer is drawn on.

A window is a form in the coordinates of the canvas, asked of every pixel while it is drawn. Moving one is three numbers
and a redraw: no data is copied, and napari slices nothing again.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vispy.visuals.filters import Filter

from napari_kdseg.widgets._compat import before_every_draw, canvas_widget, redraw, visuals_of

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer
    from vispy.visuals import Visual

Point = tuple[float, float]
"""x and y on the canvas, in Qt's pixels from its left upper corner."""


@dataclass(frozen=True)
class Window:
    """Where ``constant + slope * x + curve * |(x, y) - centre|^2 >= 0``, or everywhere else.

    Attributes
    ----------
    constant, slope, curve, centre
        Of the form, in canvas pixels.
    inverted
        Everywhere else. A window and its inverse cover every pixel of the canvas exactly once.
    """

    constant: float = 1.0
    slope: float = 0.0
    curve: float = 0.0
    centre: Point = (0.0, 0.0)
    inverted: bool = False

    def inverse(self) -> Window:
        """Everywhere but here."""
        return replace(self, inverted=not self.inverted)

    def in_frame(self, height: float, ratio: float) -> tuple[tuple[float, float, float], Point]:
        """Return (constant, slope, curve) and the centre in pixels of the frame, which count from the lower edge.

        ``height`` is the canvas's in its own pixels, ``ratio`` pixels of the frame to one of those.
        """
        x, y = self.centre
        return (self.constant, self.slope / ratio, self.curve / ratio**2), (x * ratio, (height - y) * ratio)


EVERYWHERE = Window()
NOWHERE = EVERYWHERE.inverse()


def left_of(x: float) -> Window:
    """Left of a vertical line."""
    return Window(constant=x, slope=-1.0)


def circle(centre: Point, radius: float) -> Window:
    """Inside a circle."""
    return Window(constant=radius**2, curve=-1.0, centre=centre)


class WindowFilter(Filter):
    """Draws of a layer's visuals what lies in a window, and discards the rest."""

    CODE = """
        void keep_window() {
            vec2 away = gl_FragCoord.xy - $centre;
            float value = $form.x + $form.y * gl_FragCoord.x + $form.z * dot(away, away);
            if ((value >= 0.0) == ($inverted > 0.5)) discard;
        }
    """

    def __init__(self) -> None:
        super().__init__(fcode=self.CODE, fhook="pre", fpos=2)
        self._uniforms: tuple[Any, ...] = ()
        self._visuals: weakref.WeakSet[Visual] = weakref.WeakSet()

    def set(self, window: Window, height: float, ratio: float) -> None:
        """Look through ``window`` from the next draw on; see :meth:`Window.in_frame`."""
        form, centre = window.in_frame(height, ratio)
        uniforms = (form, centre, float(window.inverted))
        if uniforms != self._uniforms:
            self._uniforms = uniforms
            self.fshader["form"], self.fshader["centre"], self.fshader["inverted"] = uniforms

    def put_on(self, visuals: Iterable[Visual]) -> None:
        """Filter these visuals; those that it is on already stay as they are."""
        for visual in visuals:
            if visual not in self._visuals:
                visual.attach(self)
                self._visuals.add(visual)

    def take_off(self) -> None:
        """Leave all visuals as napari made them."""
        for visual in list(self._visuals):
            visual.detach(self)
        self._visuals.clear()


class Windows:
    """The windows of one viewer's layers. Layers without one are drawn whole.

    Parameters
    ----------
    viewer
        Whose layers; it must outlive this.
    """

    def __init__(self, viewer: Viewer):
        self._viewer = weakref.ref(viewer)
        self._filters: dict[Layer, WindowFilter] = {}
        self._given: dict[Layer, Window] = {}
        self._hidden: frozenset[Layer] = frozenset()
        before_every_draw(viewer, self._on_draw)

    def give(self, windows: Mapping[Layer, Window]) -> None:
        """Draw these layers in these windows, and all others whole."""
        self._given = dict(windows)
        self._renew()

    def hide(self, layers: Iterable[Layer]) -> None:
        """Draw these layers nowhere, whatever their window, until told otherwise."""
        self._hidden = frozenset(layers)
        self._renew()

    def of(self, layer: Layer) -> Window:
        """The window that ``layer`` is drawn in now."""
        return NOWHERE if layer in self._hidden else self._given.get(layer, EVERYWHERE)

    def _renew(self) -> None:
        viewer = self._viewer()
        if viewer is None:
            return
        wanted = {layer for layer in (*self._given, *self._hidden) if self.of(layer) != EVERYWHERE}
        for layer in set(self._filters) - wanted:
            self._filters.pop(layer).take_off()
        for layer in wanted - set(self._filters):
            self._filters[layer] = WindowFilter()
        self._on_draw()
        redraw(viewer)

    def _on_draw(self, _event: object = None) -> None:
        """Put the filters on what draws the layers now, with what is the height of the canvas now."""
        viewer = self._viewer()
        if viewer is None or not self._filters:
            return
        canvas = canvas_widget(viewer)
        for layer, window in self._filters.items():
            window.set(self.of(layer), canvas.height(), canvas.devicePixelRatioF())
            window.put_on(visuals_of(viewer, layer))
