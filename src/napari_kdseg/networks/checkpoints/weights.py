"""Weights from files of any kind, read onto the CPU without running anything that is in them."""

from __future__ import annotations

import argparse
import errno
import pathlib
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from napari_kdseg.errors import CheckpointError, explain, is_out_of_memory
from napari_kdseg.networks.checkpoints.formats import Format, damaged_message, smp_weights_file, sniff

# What training programs keep beside weights under the weights' own names (momenta), which is no network.
_NO_NETWORK = re.compile("optim|.*scheduler")
_SCALAR = np.float64(0).__reduce__()[0]
# Plain values that training programs keep beside weights. None can run anything.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    pathlib.PosixPath,
    pathlib.PurePosixPath,
    np.dtype,
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *{type(np.dtype(kind)) for kind in ("float32", "float64", "int32", "int64", "bool")},
]
# What torch raises for a file cut short, and words it uses where a file asks for more than tensors.
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
)
_FORBIDDEN = ("Unsupported", "not an allowed", "blocklist", "blocked", "Trying to", "Can only", "TorchScript")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint onto the CPU.

    Parameters
    ----------
    path
        As :func:`napari_kdseg.networks.checkpoints.formats.resolve` returns it.

    Returns
    -------
    dict
        Name -> tensor, as the file names them, behind the names they are nested under: ``state_dict.conv.weight``.
        Those of an optimiser are left out.

    Raises
    ------
    CheckpointError
        If the file is damaged, holds more than tensors, or none.
    """
    kind = sniff(path)
    if kind is Format.SMP_FOLDER:
        return read_weights(smp_weights_file(path))
    return _state_dict(_read_torch(path), path) if kind is Format.TORCH else _read_safetensors(path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path, device="cpu")
    except SafetensorError as error:
        raise CheckpointError(damaged_message(path)) from error
    except OSError as error:
        raise CheckpointError(f"The checkpoint {path} cannot be read. {explain(error)}") from error


def _read_torch(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        if error.errno == errno.EINVAL:  # an archive cut short sends torch to places before its beginning
            raise CheckpointError(damaged_message(path)) from error
        raise CheckpointError(f"The checkpoint {path} cannot be read. {explain(error)}") from error
    except _UNREADABLE as error:
        if is_out_of_memory(error):
            raise
        raise CheckpointError(_torch_message(path, str(error))) from error


def _torch_message(path: Path, reason: str) -> str:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if not any(name.endswith("/data.pkl") for name in archive.namelist()):
                return f"{path} is a zip archive, not a checkpoint. Choose a .safetensors, .pt or .pth file."
    # torch's restricted reader speaks of a pickle cut short and of one that asks for something forbidden alike.
    return _code_message(path) if any(word in reason for word in _FORBIDDEN) else damaged_message(path)


def _code_message(path: Path) -> str:
    return (
        f"{path} holds Python objects beside its weights and was not opened, because that could run code hidden in it. "
        "In the program that wrote it, save model.state_dict() alone, best as .safetensors."
    )


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    state = _tensors(content)
    if not any(tensor.ndim > 1 for tensor in state.values()):
        raise CheckpointError(
            f"{path} holds no weights of a network. Save model.state_dict() and choose that file."
        )
    return state


def _tensors(content: Any, before: str = "") -> dict[str, Tensor]:
    """Find the tensors in nested dictionaries and lists; names are joined by dots."""
    if isinstance(content, Mapping):
        items: Iterable[tuple[Any, Any]] = content.items()
    else:
        items = enumerate(content) if isinstance(content, list | tuple) else ()
    found: dict[str, Tensor] = {}
    for key, value in items:
        if isinstance(value, Tensor):
            found[f"{before}{key}"] = value
        elif not _NO_NETWORK.match(str(key)):
            found |= _tensors(value, f"{before}{key}.")
    return found
