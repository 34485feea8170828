"""Segmentation networks: names -> torch modules, checkpoints on disk, and what the other rooms ask of a network.

What describes a network (:class:`NetworkSpec`, :func:`names`, :func:`input_multiple`, :func:`inspect`) is imported
at once and needs no torch; everything that computes is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from napari_kdseg.networks.catalogue import input_multiple, smallest_input
from napari_kdseg.networks.checkpoints.formats import inspect
from napari_kdseg.networks.foreign.permission import allow_code, allowed_code
from napari_kdseg.networks.recommended import RecommendedNetwork, recommended_networks
from napari_kdseg.networks.spec import NetworkSpec

if TYPE_CHECKING:
    from napari_kdseg.networks.anatomy.describe import (
        count_parameters,
        last_feature,
        output_stride,
        sees_everything,
        unwrap,
    )
    from napari_kdseg.networks.anatomy.named_layers import find_taps, tap_of
    from napari_kdseg.networks.anatomy.taps import capture
    from napari_kdseg.networks.build import create, create_from
    from napari_kdseg.networks.checkpoints.checkpoint import Checkpoint, load, save
    from napari_kdseg.networks.checkpoints.encoder_weights import load_encoder
    from napari_kdseg.networks.padding import pad_to_multiple, predict_logits
    from napari_kdseg.networks.parallel.sharing import LostProcessError, Shares, among, divided, shares
    from napari_kdseg.networks.preprocess import denormalise, normalise, to_input

_HOMES = {
    "Checkpoint": "checkpoints.checkpoint",
    "LostProcessError": "parallel.sharing",
    "Shares": "parallel.sharing",
    "among": "parallel.sharing",
    "capture": "anatomy.taps",
    "count_parameters": "anatomy.describe",
    "create": "build",
    "create_from": "build",
    "denormalise": "preprocess",
    "divided": "parallel.sharing",
    "find_taps": "anatomy.named_layers",
    "last_feature": "anatomy.describe",
    "load": "checkpoints.checkpoint",
    "load_encoder": "checkpoints.encoder_weights",
    "normalise": "preprocess",
    "output_stride": "anatomy.describe",
    "pad_to_multiple": "padding",
    "predict_logits": "padding",
    "save": "checkpoints.checkpoint",
    "sees_everything": "anatomy.describe",
    "shares": "parallel.sharing",
    "tap_of": "anatomy.named_layers",
    "to_input": "preprocess",
    "unwrap": "anatomy.describe",
}

__all__ = [
    "Checkpoint",
    "LostProcessError",
    "NetworkSpec",
    "RecommendedNetwork",
    "Shares",
    "allow_code",
    "allowed_code",
    "among",
    "capture",
    "count_parameters",
    "create",
    "create_from",
    "denormalise",
    "divided",
    "find_taps",
    "input_multiple",
    "inspect",
    "last_feature",
    "load",
    "load_encoder",
    "normalise",
    "output_stride",
    "pad_to_multiple",
    "predict_logits",
    "recommended_networks",
    "save",
    "sees_everything",
    "shares",
    "smallest_input",
    "tap_of",
    "to_input",
    "unwrap",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
