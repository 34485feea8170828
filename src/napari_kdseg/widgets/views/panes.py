"""Side by side: two or three panes with linked cameras, each the slide with one mask over it.

napari's grid fills its panes with so many consecutive layers each. So every pane has pictures of its own: layers that
share the arrays, and with them the one tile cache, of the pictures that were there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.experimental import link_layers, unlink_layers
from napari.layers import Image, Labels, Layer, Points
from qtpy.QtCore import QObject

from napari_kdseg.widgets.layers.colours import readable_on
from napari_kdseg.widgets.layers.placement import ROLE_KEY, SOURCE_KEY
from napari_kdseg.widgets.views.comparisons import Comparison
from napari_kdseg.widgets.views.stage import Side, Stage

if TYPE_CHECKING:
    from napari.components import LayerList
    from napari.utils.events import Event

COPY = "slide copy"
LINKED = ("visible", "opacity", "gamma", "contrast_limits", "colormap", "blending", "contour")
GAP = 4
"""Pixels between panes."""


class Panes(Comparison):
    """The sides beside one another, at the same place and zoom."""

    side_count = 3

    def __init__(self, stage: Stage, parent: QObject):
        super().__init__(stage, parent)
        self._copies: dict[Layer, Layer] = {}
        self._titles: list[Layer] = []
        self._blanks: list[Layer] = []
        self._order: list[Layer] = []

    def start(self) -> None:  # noqa: D102
        viewer, sides = self.stage.viewer, self.stage.sides(self.side_count)
        active = viewer.layers.selection.active
        self._order = list(viewer.layers)
        subjects = [side.layer for side in sides]
        pictures = [
            layer
            for layer in viewer.layers
            if layer.visible and isinstance(layer, Image | Labels) and layer not in subjects
        ]
        if not pictures:
            return  # no slide to put beside itself
        panes = [
            [
                *(self._copied(layer) if number else layer for layer in pictures),
                side.layer or self._blank(side, pictures[0]),
            ]
            for number, side in enumerate(sides)
        ]
        self._titles = [pane[-1] for pane in panes]
        _to_front(viewer.layers, [layer for pane in panes for layer in pane])
        for title, side in zip(self._titles, sides, strict=True):
            overlay = title.name_overlay
            overlay.box, overlay.box_color, overlay.color = True, side.colour, readable_on(side.colour)
            overlay.font_size, overlay.visible = 12, True
        viewer.layers.selection.active = active
        self._grid_corners(True)
        grid = viewer.canvas.grid
        grid.stride, grid.shape, grid.spacing = len(panes[0]), (1, len(panes)), GAP
        grid.enabled = True

    def stop(self) -> None:  # noqa: D102
        viewer = self.stage.viewer
        viewer.canvas.grid.enabled = False
        self._grid_corners(False)
        for title in self._titles:
            title.name_overlay.visible = False
        for layer in set(self._copies.values()):
            layer.events.data.disconnect(self._on_data)
        for copy, layer in self._copies.items():
            unlink_layers([layer, copy])
        for layer in [*self._copies, *self._blanks]:
            if layer in viewer.layers:
                viewer.layers.remove(layer)
        _to_front(viewer.layers, [layer for layer in self._order if layer in viewer.layers])
        super().stop()

    def _grid_corners(self, on: bool) -> None:
        """Put the scale bar and the magnification into every pane: in one alone they would lie over one another."""
        for overlay in (self.stage.viewer.canvas.overlays.scale_bar, self.stage.viewer.canvas.overlays.text):
            overlay.gridded = on

    def _copied(self, layer: Layer) -> Layer:
        """A layer of the same arrays that is to look like ``layer``."""
        data, state, kind = layer.as_layer_data_tuple()
        metadata = {key: layer.metadata[key] for key in (SOURCE_KEY,) if key in layer.metadata}
        state |= {"metadata": {ROLE_KEY: COPY, **metadata}, "name": f"{layer.name} (pane)"}
        copy = self.stage.viewer.add_layer(Layer.create(data, state, kind))
        if isinstance(layer, Labels):
            copy.contour = layer.contour
        link_layers([layer, copy], [name for name in LINKED if hasattr(layer, name)])
        layer.events.data.connect(self._on_data)
        self._copies[copy] = layer
        return copy

    def _blank(self, side: Side, under: Layer) -> Layer:
        """Nothing over the slide: it keeps the place of a mask, and says what it is."""
        points = Points(ndim=2, name=side.title, units=under.units[-2:], metadata={ROLE_KEY: COPY})
        self._blanks.append(points)
        return self.stage.viewer.add_layer(points)

    def _on_data(self, event: Event) -> None:
        """The picture shows other pixels now (other colours, say): so do its copies."""
        for copy, layer in self._copies.items():
            if layer is event.source:
                if SOURCE_KEY in layer.metadata:
                    copy.metadata[SOURCE_KEY] = layer.metadata[SOURCE_KEY]
                copy.data = layer.data


def _to_front(layers: LayerList, wanted: list[Layer]) -> None:
    """Bring the layers to the head of the list, in this order."""
    if wanted:
        layers.move_multiple([layers.index(layer) for layer in wanted], 0)
