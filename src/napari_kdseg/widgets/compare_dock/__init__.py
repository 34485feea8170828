"""Dock 4, Compare: where do they differ, and why."""

from napari_kdseg.widgets.compare_dock.dock import CompareDock

__all__ = ["CompareDock"]
