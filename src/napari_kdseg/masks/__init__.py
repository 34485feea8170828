"""Masks of a slide on disk: written tile by tile, read while they grow, exported to other programs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_kdseg.masks.export.masks import ExportConfig, export_masks
    from napari_kdseg.masks.pyramid import MaskPyramid, open_masks
    from napari_kdseg.masks.settings import SlideSettings
    from napari_kdseg.masks.store import MaskSpec, MaskStore
    from napari_kdseg.masks.tiling import Tile, plan_tiles
    from napari_kdseg.masks.writer import MaskWriter

_HOMES = {
    "ExportConfig": "export.masks",
    "MaskPyramid": "pyramid",
    "MaskSpec": "store",
    "MaskStore": "store",
    "MaskWriter": "writer",
    "SlideSettings": "settings",
    "Tile": "tiling",
    "export_masks": "export.masks",
    "open_masks": "pyramid",
    "plan_tiles": "tiling",
}

__all__ = [
    "ExportConfig",
    "MaskPyramid",
    "MaskSpec",
    "MaskStore",
    "MaskWriter",
    "SlideSettings",
    "Tile",
    "export_masks",
    "open_masks",
    "plan_tiles",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
