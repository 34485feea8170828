"""All four docks at once, as tabs on the right, with the status line below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QDockWidget, QWidget

from napari_kdseg.widgets.parts.dock import Dock
from napari_kdseg.widgets.parts.note import Note

if TYPE_CHECKING:
    from napari.viewer import Viewer


PLUGIN = "napari-kdseg"
DOCKS = ("1 Slide", "2 Models", "3 Distil", "4 Compare")
STATUS = "KD Seg status"


def open_workspace(viewer: Viewer) -> dict[str, Any]:
    """Open the four docks as tabs and the status line; return the docks by name. Safe to repeat."""
    from napari_kdseg.widgets.job_bar import JobBar
    from napari_kdseg.widgets.state.preferences import follow_cache_size

    follow_cache_size()
    docks: dict[str, Any] = {}
    frames: list[Any] = []
    for name in DOCKS:
        frame, docks[name] = viewer.window.add_plugin_dock_widget(PLUGIN, name, tabify=bool(frames))
        frames.append(frame)
    if STATUS not in viewer.window.dock_widgets:
        docks[STATUS] = JobBar(viewer)
        viewer.window.add_dock_widget(docks[STATUS], name=STATUS, area="bottom", add_vertical_stretch=False)
    raise_dock(docks["1 Slide"])
    return docks


def raise_dock(widget: QWidget) -> None:
    """Bring the tab of a dock to the front."""
    parent = widget
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parent()
    if parent is not None:
        parent.show()
        parent.raise_()


class WorkspaceDock(Dock):
    """The entry in the plugin's menu that arranges everything else, and then makes room."""

    def __init__(self, napari_viewer: Viewer):
        super().__init__(napari_viewer)
        self.column.addWidget(Note("Opening 1 Slide, 2 Models, 3 Distil and 4 Compare ..."))
        QTimer.singleShot(0, self._arrange)

    def _arrange(self) -> None:
        open_workspace(self.viewer)
        self.viewer.window.remove_dock_widget(self)
