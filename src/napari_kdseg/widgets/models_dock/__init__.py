"""Dock 2, Models: who segments it."""

from napari_kdseg.widgets.models_dock.dock import ModelsDock

__all__ = ["ModelsDock"]
