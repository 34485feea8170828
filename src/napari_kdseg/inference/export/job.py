"""The job that writes a trained network for other programs: each file is compared with the network, and whole."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram

from napari_kdseg.errors import ConfigurationError, InTheWayError, OutputError, explain
from napari_kdseg.files import write_whole
from napari_kdseg.inference.export.config import ExportModelConfig
from napari_kdseg.inference.export.hub_card import Facts, hub_card, training_record
from napari_kdseg.inference.measuring.receptive_field import receptive_field_radius
from napari_kdseg.inference.measuring.tuning import bytes_per_pixel
from napari_kdseg.inference.network.engine import Engine
from napari_kdseg.jobs import Checkpointed, Control, Emit, Message, Started, Step
from napari_kdseg.networks import count_parameters, input_multiple, load, save
from napari_kdseg.networks.anatomy.cost import multiply_adds
from napari_kdseg.networks.foreign.onnx_export import largest_difference, to_onnx
from napari_kdseg.networks.foreign.onnx_file import OnnxFacts, onnx_package
from napari_kdseg.networks.foreign.onnx_network import OnnxNetwork
from napari_kdseg.networks.foreign.portable import exported_program

CARD = "README.md"
#: Side of the image whose multiply-adds the card tells.
SIDE = 512


@dataclass(frozen=True)
class ExportedModel:
    """What an export wrote.

    Attributes
    ----------
    files
        In the order of the formats asked for; the card is the last.
    differences
        Format -> largest difference of a logit from PyTorch's on the images it was compared on.
    """

    files: tuple[Path, ...]
    differences: dict[str, float]


def export_model(config: ExportModelConfig, emit: Emit, control: Control) -> ExportedModel:
    """Export a trained network (a job).

    Parameters
    ----------
    config
        What to do.
    emit, control
        A ``Step`` for each part, and a chance to stop between them; files that are whole stay.

    Returns
    -------
    ExportedModel

    Raises
    ------
    KdsegError
        If the checkpoint cannot be read, its network cannot be written so or computes something else then, a file is in
        the way, or one cannot be written.
    """
    return _Export(config, emit, control).run()


class _Export:
    def __init__(self, config: ExportModelConfig, emit: Emit, control: Control):
        self._config, self._emit, self._control = config, emit, control
        self._parts = 1 + len(config.formats) + 1
        self._done = 0
        self._differences: dict[str, float] = {}

    def run(self) -> ExportedModel:
        """Do all of it."""
        config = self._config
        stem = config.checkpoint.stem
        files = {kind: config.output / f"{stem}.{kind}" for kind in config.formats} | {
            "card": config.output / CARD
        }
        self._check(files)
        self._emit(Started("export", self._parts))
        checkpoint = load(config.checkpoint)
        if isinstance(checkpoint.module, OnnxNetwork):
            raise ConfigurationError(
                f"{config.checkpoint} is an ONNX file already. Choose the checkpoint (.safetensors) it was made from."
            )
        self._module, self._spec = checkpoint.module.requires_grad_(False), checkpoint.spec
        self._facts = self._measure()
        for kind in config.formats:
            self._step(
                {"onnx": self._onnx, "pt2": self._pt2, "safetensors": self._safetensors}[kind], files[kind]
            )
        self._step(self._card, files["card"])
        return ExportedModel(tuple(files.values()), self._differences)

    def _check(self, files: dict[str, Path]) -> None:
        """Refuse before anything is computed what would be refused after it."""
        if self._config.checkpoint.resolve() in {file.resolve() for file in files.values()}:
            raise OutputError(
                f"The checkpoint lies in {self._config.output} itself and would be replaced. Choose another folder."
            )
        there = [file for file in files.values() if file.exists()]
        if there and not self._config.overwrite:
            raise InTheWayError(
                f"{there[0]} is there already. Choose another folder, or allow it to be replaced."
            )
        for package in ("onnx", "onnxscript", "onnxruntime") if "onnx" in files else ():
            onnx_package(package)

    def _measure(self) -> OnnxFacts:
        self._say("Measuring how far the network looks …")
        spec, multiple = self._spec, input_multiple(self._spec)
        facts = OnnxFacts(
            multiple=multiple,
            radius=receptive_field_radius(self._module, spec.in_channels, multiple),
            bytes_per_pixel=bytes_per_pixel(Engine(self._module, spec, torch.device("cpu")), multiple),
            parameters=count_parameters(self._module),
        )
        self._count()
        return facts

    def _step(self, write: Callable[[Path], None], path: Path) -> None:
        self._control.check()
        self._say(f"Writing {path.name} …")
        try:
            write(path)
        except OSError as error:
            raise OutputError(f"{path} was not written. {explain(error)}") from error
        self._emit(Checkpointed(path))
        self._count()

    @functools.cached_property
    def _program(self) -> ExportedProgram:
        return exported_program(
            self._module, self._spec.architecture, self._spec.in_channels, self._facts.multiple
        )

    def _onnx(self, path: Path) -> None:
        content, facts = to_onnx(self._program, self._module, self._spec, self._facts)
        assert facts.largest_difference is not None, "it was just measured"
        self._differences["onnx"] = facts.largest_difference
        write_whole(path, content)

    def _pt2(self, path: Path) -> None:
        buffer = io.BytesIO()
        torch.export.save(self._program, buffer, extra_files={"kdseg.json": self._spec.model_dump_json()})
        buffer.seek(0)
        self._differences["pt2"] = self._compared(torch.export.load(buffer).module())
        write_whole(path, buffer.getbuffer())

    def _safetensors(self, path: Path) -> None:
        save(path, self._module, self._spec)
        self._differences["safetensors"] = self._compared(load(path).module)

    def _compared(self, other: nn.Module) -> float:
        return largest_difference(self._module, other, self._spec.in_channels, self._facts.multiple)

    def _card(self, path: Path) -> None:
        spec, side = self._spec, -(-SIDE // self._facts.multiple) * self._facts.multiple
        facts = Facts(
            stem=self._config.checkpoint.stem,
            spec=spec,
            onnx=self._facts,
            multiply_adds=multiply_adds(self._module, side, side, spec.in_channels),
            side=side,
            differences=self._differences,
        )
        write_whole(
            path, hub_card(facts, training_record(self._config.checkpoint, self._config.run)).encode()
        )

    def _say(self, sentence: str) -> None:
        self._control.check()
        self._emit(Message(sentence))

    def _count(self) -> None:
        self._done += 1
        self._emit(Step("export", self._done, self._parts))
