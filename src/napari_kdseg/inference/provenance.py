"""What is written down beside a mask, so that anyone can tell later what made it."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from napari_kdseg.networks import NetworkSpec


def checkpoint_record(path: Path, spec: NetworkSpec) -> dict[str, Any]:
    """Identify a network: file name, SHA-256 of the file, architecture and pixel size."""
    return {
        "name": path.name,
        "sha256": file_sha256(path),
        "architecture": spec.architecture,
        "mpp": spec.mpp,
    }


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, or of all files of a folder in order of their names."""
    files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for item in files:
        with item.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of what takes part in a prediction."""
    names = ("napari-kdseg", "torch", "numpy", "zarr")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
