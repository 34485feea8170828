"""Segmentation networks: names -> torch modules, checkpoints on disk, and what the other rooms ask of a network.

What describes a network (:class:`NetworkSpec`, :func:`names`, :func:`input_multiple`, :func:`inspect`) is imported
at once and needs no torch; everything that computes is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from napari_kdseg.networks.catalogue import input_multiple, smallest_input
from napari_kdseg.networks.choices import NetworkChoice, names
from napari_kdseg.networks.formats import inspect
from napari_kdseg.networks.permission import allow_code, allowed_code
from napari_kdseg.networks.spec import NetworkSpec

if TYPE_CHECKING:
    from napari_kdseg.networks.build import create, create_from
    from napari_kdseg.networks.checkpoint import Checkpoint, load, save
    from napari_kdseg.networks.describe import (
        count_parameters,
        last_feature,
        output_stride,
        sees_everything,
        unwrap,
    )
    from napari_kdseg.networks.encoder_weights import load_encoder
    from napari_kdseg.networks.padding import pad_to_multiple, predict_logits
    from napari_kdseg.networks.preprocess import denormalise, normalise, to_input
    from napari_kdseg.networks.roles import find_taps, tap_of
    from napari_kdseg.networks.sharing import LostProcessError, Shares, among, divided, shares
    from napari_kdseg.networks.taps import capture

_HOMES = {
    "Checkpoint": "checkpoint",
    "LostProcessError": "sharing",
    "Shares": "sharing",
    "among": "sharing",
    "capture": "taps",
    "count_parameters": "describe",
    "create": "build",
    "create_from": "build",
    "denormalise": "preprocess",
    "divided": "sharing",
    "find_taps": "roles",
    "last_feature": "describe",
    "load": "checkpoint",
    "load_encoder": "encoder_weights",
    "normalise": "preprocess",
    "output_stride": "describe",
    "pad_to_multiple": "padding",
    "predict_logits": "padding",
    "save": "checkpoint",
    "sees_everything": "describe",
    "shares": "sharing",
    "tap_of": "roles",
    "to_input": "preprocess",
    "unwrap": "describe",
}

__all__ = [
    "Checkpoint",
    "LostProcessError",
    "NetworkChoice",
    "NetworkSpec",
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
    "names",
    "normalise",
    "output_stride",
    "pad_to_multiple",
    "predict_logits",
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
