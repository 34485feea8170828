"""Dock 1, Slide: what am I looking at."""

from napari_kdseg.widgets.slide_dock.dock import SlideDock

__all__ = ["SlideDock"]
