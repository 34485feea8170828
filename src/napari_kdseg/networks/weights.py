"""Weights from files of any kind, read without running anything in them, and a plain account of what does not fit."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from napari_kdseg.errors import CheckpointError, explain, is_out_of_memory
from napari_kdseg.networks.formats import Format, damaged_message, smp_weights_file, sniff
from napari_kdseg.networks.spec import NetworkSpec

_NESTS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "module")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
_SHOWN = 5


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint onto the CPU.

    Parameters
    ----------
    path
        As :func:`napari_kdseg.networks.formats.resolve` returns it.

    Returns
    -------
    dict
        Name -> tensor; nesting and prefixes such as ``module.`` are taken off.

    Raises
    ------
    CheckpointError
        If the file is damaged, holds more than tensors, or none.
    """
    kind = sniff(path)
    if kind is Format.SMP_FOLDER:
        return read_weights(smp_weights_file(path))
    content = _read_torch(path) if kind is Format.TORCH else _read_safetensors(path)
    return _without_prefix(_state_dict(content, path))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path, device="cpu")
    except SafetensorError as error:
        raise CheckpointError(damaged_message(path)) from error
    except OSError as error:
        raise CheckpointError(f"The checkpoint {path} cannot be read. {explain(error)}") from error


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_unpickling_message(path, error)) from error
    except OSError as error:
        raise CheckpointError(f"The checkpoint {path} cannot be read. {explain(error)}") from error
    except (
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        AssertionError,
    ) as error:
        if is_out_of_memory(error):
            raise
        if "TorchScript" in str(error):
            raise CheckpointError(_code_message(path)) from error
        raise CheckpointError(damaged_message(path)) from error


def _unpickling_message(path: Path, error: pickle.UnpicklingError) -> str:
    # torch's restricted reader uses one exception for a pickle cut short and for one that asks for something forbidden.
    forbidden = ("Unsupported", "GLOBAL", "weights_only", "not an allowed", "blocklist", "Trying to")
    return _code_message(path) if any(word in str(error) for word in forbidden) else damaged_message(path)


def _code_message(path: Path) -> str:
    return (
        f"{path} holds Python objects beside its weights and was not opened, because doing so could run code hidden in it. "
        "In the program that wrote it, save model.state_dict() alone, best as .safetensors."
    )


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping) and content:
        if all(isinstance(value, Tensor) for value in content.values()):
            return {str(key): tensor for key, tensor in content.items()}
        nest = next((key for key in _NESTS if isinstance(content.get(key), Mapping)), None)
        if nest is None:
            break
        content = content[nest]
    raise CheckpointError(
        f"{path} holds no weights of a network (looked for under {', '.join(_NESTS)}). Save model.state_dict() and choose that file."
    )


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return state


def describe_misfit(
    have: Mapping[str, torch.Size], module: nn.Module, spec: NetworkSpec, subject: str
) -> str | None:
    """Compare the shapes of weights with those of a network.

    Parameters
    ----------
    have
        Name -> shape of the weights.
    module
        The network.
    spec
        Its description.
    subject
        Begins the message: ``"This checkpoint (a.pth)"``.

    Returns
    -------
    str or None
        A sentence and a short table; None if everything fits.
    """
    want = {key: tensor.shape for key, tensor in module.state_dict().items()}
    missing = [key for key in want if key not in have]
    unexpected = [key for key in have if key not in want]
    other = [key for key in want if key in have and have[key] != want[key]]
    if not missing and not unexpected and not other:
        return None
    rows = {
        "missing": missing,
        "unexpected": unexpected,
        "other shape": [f"{key} {list(have[key])}, expected {list(want[key])}" for key in other],
    }
    table = "\n".join(f"  {label} ({len(keys)}): {_first(keys)}" for label, keys in rows.items() if keys)
    return f"{subject} {_reason(have, want, spec)}\n  network: {spec.describe()}\n{table}"


def _reason(have: Mapping[str, torch.Size], want: Mapping[str, torch.Size], spec: NetworkSpec) -> str:
    """Put the difference into a sentence where only the number of classes or of channels differs."""
    if have.keys() != want.keys():
        return f"does not hold the weights of {spec.architecture}. Choose the architecture it was made with."
    classes, channels = len(spec.classes), spec.in_channels
    for key, expected in want.items():
        found = have[key]
        axes = [i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b]
        if len(found) != len(expected) or len(axes) != 1:
            continue
        if key.startswith(("segmentation_head", "classifier")) and expected[axes[0]] == classes:
            return f"has {found[axes[0]]} classes, the network asked for has {classes}. Choose another checkpoint or name its classes."
        if axes == [1] and expected[1] == channels:
            return f"takes {found[1]} channels, the network asked for takes {channels}. Choose another checkpoint or its channels."
    return f"has the layers of {spec.architecture}, but in other sizes. Choose the options it was made with."


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")
