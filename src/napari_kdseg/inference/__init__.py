"""A network and a slide become a mask pyramid on disk."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from napari_kdseg.inference.config import PredictConfig
from napari_kdseg.inference.cost_figures import Cost, CostConfig, CostResult, Subject

if TYPE_CHECKING:
    from napari_kdseg.inference.cost import measure_costs
    from napari_kdseg.inference.prediction import predict, prepare
    from napari_kdseg.inference.running import PredictResult

_HOMES = {
    "PredictResult": "running",
    "predict": "prediction",
    "prepare": "prediction",
    "measure_costs": "cost",
}

__all__ = [
    "Cost",
    "CostConfig",
    "CostResult",
    "PredictConfig",
    "PredictResult",
    "Subject",
    "measure_costs",
    "predict",
    "prepare",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
