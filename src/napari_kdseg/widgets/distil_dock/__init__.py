"""Dock 3, Distil: make a better student."""

from napari_kdseg.widgets.distil_dock.dock import DistilDock

__all__ = ["DistilDock"]
