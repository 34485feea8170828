"""A network and a slide become a mask pyramid on disk."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from napari_kdseg.inference.config import PredictConfig, SlideSettings

if TYPE_CHECKING:
    from napari_kdseg.inference.mask_export import ExportConfig, export_masks
    from napari_kdseg.inference.mask_pyramid import MaskPyramid, open_masks
    from napari_kdseg.inference.mask_store import MaskSpec, MaskStore
    from napari_kdseg.inference.mask_writer import MaskWriter
    from napari_kdseg.inference.prediction import PredictResult, predict
    from napari_kdseg.inference.tiling import Tile, plan_tiles

_HOMES = {
    "ExportConfig": "mask_export",
    "MaskPyramid": "mask_pyramid",
    "MaskSpec": "mask_store",
    "MaskStore": "mask_store",
    "MaskWriter": "mask_writer",
    "PredictResult": "prediction",
    "Tile": "tiling",
    "export_masks": "mask_export",
    "open_masks": "mask_pyramid",
    "plan_tiles": "tiling",
    "predict": "prediction",
}

__all__ = [
    "ExportConfig",
    "MaskPyramid",
    "MaskSpec",
    "MaskStore",
    "MaskWriter",
    "PredictConfig",
    "PredictResult",
    "SlideSettings",
    "Tile",
    "export_masks",
    "open_masks",
    "plan_tiles",
    "predict",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
