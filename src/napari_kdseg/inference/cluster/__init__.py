"""Prediction of many slides on many machines, by dask.distributed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from napari_kdseg.inference.cluster.config import PredictManyConfig

if TYPE_CHECKING:
    from napari_kdseg.inference.cluster.job import PredictManyResult, predict_many

__all__ = ["PredictManyConfig", "PredictManyResult", "predict_many"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.job"), name)
