"""A trained network leaves: ONNX, ExportedProgram, safetensors, and a card that says what it is."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from napari_kdseg.inference.export.config import ExportModelConfig

if TYPE_CHECKING:
    from napari_kdseg.inference.export.job import ExportedModel, export_model
    from napari_kdseg.inference.export.onnx_copy import describe_onnx

_HOMES = {"ExportedModel": "job", "export_model": "job", "describe_onnx": "onnx_copy"}

__all__ = ["ExportModelConfig", "ExportedModel", "describe_onnx", "export_model"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
