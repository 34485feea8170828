"""A network and a slide become a mask pyramid on disk."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from napari_kdseg.inference.config import PredictConfig

if TYPE_CHECKING:
    from napari_kdseg.inference.prediction import predict, prepare
    from napari_kdseg.inference.running import PredictResult

_HOMES = {"PredictResult": "running", "predict": "prediction", "prepare": "prediction"}

__all__ = ["PredictConfig", "PredictResult", "predict", "prepare"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
