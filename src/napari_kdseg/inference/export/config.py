"""What the export of a network is told. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from napari_kdseg.settings import setting

Format = Literal["onnx", "pt2", "safetensors"]
FORMATS: tuple[Format, ...] = ("onnx", "pt2", "safetensors")


class ExportModelConfig(BaseModel):
    """Which network is exported, as what, and where to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: Path = setting(..., "Checkpoint", "The trained network.")
    output: Path = setting(..., "Folder", "Where the files are put; made if there is none.")
    formats: tuple[Format, ...] = setting(
        FORMATS,
        "As",
        "onnx (any program, through onnxruntime), pt2 (PyTorch without this program), safetensors (weights).",
        min_length=1,
    )
    run: Path | None = setting(
        None,
        "Run folder",
        "Run folder that fills the card. Default: that in which the checkpoint lies, if it lies in one.",
    )
    overwrite: bool = setting(False, "Replace", "Replace files that are there.")
