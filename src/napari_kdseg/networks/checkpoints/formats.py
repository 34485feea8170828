"""The kinds of checkpoint that can be read, told apart by their first bytes, and the description each one holds.

No torch here: a file is described from its header alone. Nothing in a file is ever run: pickles are only opened by
torch's restricted reader (see ``weights.py``).
"""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from napari_kdseg.errors import CheckpointError, WeightsOnlyError, explain
from napari_kdseg.networks.foreign.onnx_file import read_header, undescribed_message
from napari_kdseg.networks.spec import NetworkSpec

HEADER_KEY = "kdseg"
_ONNX_FIELDS = tuple(bytes([number << 3 | 2]) for number in (2, 3, 4, 6, 7, 8, 14)) + (b"\x28",)
_SMP_CONFIG, _SMP_WEIGHTS = "config.json", ("model.safetensors", "pytorch_model.bin")
_MONAI_WEIGHTS = Path("models") / "model.pt"


SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".onnx")
"""What the names of checkpoints end in. What a file is, its first bytes tell; its name, whether a file is meant."""


class Format(Enum):
    """The kinds of checkpoint."""

    SAFETENSORS = "safetensors"
    TORCH = "torch"
    SMP_FOLDER = "smp folder"
    ONNX = "onnx"


def inspect(path: str | Path) -> NetworkSpec:
    """Read what network a checkpoint holds, without its weights.

    Parameters
    ----------
    path
        A checkpoint of this project (``.safetensors``, ``.onnx``), or a folder that ``save_pretrained`` of
        segmentation-models-pytorch wrote.

    Returns
    -------
    NetworkSpec

    Raises
    ------
    CheckpointError
        If there is no such file, it is damaged, or it holds weights only.
    """
    path = resolve(path)
    spec = read_spec(path)
    if spec is None:
        if sniff(path) is Format.ONNX:
            raise CheckpointError(undescribed_message(path))
        raise WeightsOnlyError(weights_only_message(path))
    return spec


def resolve(path: str | Path) -> Path:
    """Find the checkpoint meant by ``path``.

    For a file inside a ``save_pretrained`` folder that is the folder, for a bundle of MONAI the weights in it.
    """
    path = Path(path).expanduser()
    if (path / "configs").is_dir() and (path / _MONAI_WEIGHTS).is_file():
        return path / _MONAI_WEIGHTS
    if path.name in (*_SMP_WEIGHTS, _SMP_CONFIG) and _is_smp_folder(path.parent):
        return path.parent
    return path


def _is_smp_folder(folder: Path) -> bool:
    return "_model_class" in _read_json(folder / _SMP_CONFIG)


def is_checkpoint(path: str | Path) -> bool:
    """Tell whether a checkpoint is meant: a folder by what is in it, a file by its name, also where there is none."""
    path = Path(path).expanduser()
    if path.is_dir():
        return _is_smp_folder(path) or resolve(path) != path
    return path.suffix.lower() in SUFFIXES


def read_spec(path: Path) -> NetworkSpec | None:
    """Read the description in a checkpoint; None for a file of weights only."""
    match sniff(path):
        case Format.SAFETENSORS:
            text = _read_metadata(path).get(HEADER_KEY)
            return None if text is None else _parse_spec(path, text)
        case Format.SMP_FOLDER:
            from napari_kdseg.networks.checkpoints.smp_folder import spec_from_config

            return spec_from_config(path, _read_json(path / _SMP_CONFIG))
        case Format.ONNX:
            return read_header(path)[0]
    return None


def smp_weights_file(folder: Path) -> Path:
    """Find the weights in a ``save_pretrained`` folder."""
    for name in _SMP_WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"The folder {folder} has a config.json but no weights ({' or '.join(_SMP_WEIGHTS)}). Copy them there."
    )


def sniff(path: Path) -> Format:
    """Tell what kind of checkpoint lies at ``path`` by looking at its first bytes, never at its name.

    Raises
    ------
    CheckpointError
        If nothing is there, or it is no checkpoint.
    """
    if path.is_dir():
        if _is_smp_folder(path):
            return Format.SMP_FOLDER
        raise CheckpointError(
            f"The folder {path} holds no network: it has no readable config.json of segmentation-models-pytorch. "
            "Choose the checkpoint file itself."
        )
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except FileNotFoundError:
        raise CheckpointError(
            f"There is no checkpoint at {path}. Check the path, or choose another file."
        ) from None
    except OSError as error:
        raise CheckpointError(f"The checkpoint {path} cannot be read. {explain(error)}") from error
    if not start:
        raise CheckpointError(f"{path} is empty. Copy it again, or choose another file.")
    # safetensors begins with the length of its header, eight bytes, and the brace that opens the header. It is asked
    # first, because that length may begin with the byte of a pickle.
    if start[8:9] == b"{" and start[6:8] == b"\0\0":
        return Format.SAFETENSORS
    # torch's zip archive, or its older bare pickle
    if start.startswith(b"PK\x03\x04") or start[:1] == b"\x80":
        return Format.TORCH
    # ONNX has no mark of its own: a protobuf message whose first field is the small number of the version
    if start[:1] == b"\x08" and start[1:2] < b"\x20" and start[2:3] in _ONNX_FIELDS:
        return Format.ONNX
    raise CheckpointError(
        f"{path} is not a checkpoint: it is neither safetensors nor a PyTorch or ONNX file. "
        f"Choose a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file."
    )


def damaged_message(path: Path) -> str:
    """Say that a file is cut short or damaged."""
    return f"{path} is damaged or only half of it is there. Copy or download it again, or choose another checkpoint."


def weights_only_message(path: Path) -> str:
    """Say that a file does not tell what network its weights belong to."""
    return (
        f"{path} holds weights only and does not say which network they belong to. "
        "Name the architecture and the classes: in the window where it asks, or with 'kdseg adopt'."
    )


def _read_metadata(path: Path) -> dict[str, str]:
    try:
        # Opening checks that the header is whole and that the tensors fill the file.
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(damaged_message(path)) from error
    except OSError as error:
        raise CheckpointError(f"The checkpoint {path} cannot be read. {explain(error)}") from error


def _parse_spec(path: Path, text: str) -> NetworkSpec:
    try:
        return NetworkSpec.from_header(text)
    except ValidationError as error:
        problem = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:3]
        )
        raise CheckpointError(
            f"The description of the network in {path} cannot be understood ({problem}). "
            "It may come from a newer version of this program; update it."
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty where there is none."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
