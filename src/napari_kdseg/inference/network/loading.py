"""Networks ready to run, kept in memory between predictions: the second click costs no loading."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any

import torch
from torch import nn

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.inference.network.engine import Arithmetic, Engine
from napari_kdseg.inference.network.fusing import fused
from napari_kdseg.inference.network.processor import for_processor
from napari_kdseg.inference.provenance import checkpoint_record
from napari_kdseg.networks import NetworkSpec, input_multiple, load
from napari_kdseg.networks.foreign.onnx_file import OnnxFacts
from napari_kdseg.networks.foreign.onnx_network import OnnxNetwork

#: Networks that are kept: a teacher, a student, and their assistants.
KEPT = 4
_one_at_a_time = threading.Lock()


class LoadedNetwork:
    """A network of a checkpoint on a device.

    Attributes
    ----------
    path, sha256, spec
        Which checkpoint, and what its header says.
    module
        In eval mode, normalisations folded into convolutions, channels last; gradients are to be had.
    running
        The same as it is run: on a processor without gradients.
    multiple
        Total downsampling: what sides of an input must be a multiple of.
    device
        Where it is.
    record
        What identifies it, for provenance.
    by_onnxruntime
        Whether it is computed by onnxruntime, which is in float32 always and not compiled.
    """

    def __init__(self, path: Path, device: torch.device):
        checkpoint = load(path, device=str(device))
        self.path = checkpoint.path
        self.record: dict[str, Any] = checkpoint_record(checkpoint.path, checkpoint.spec)
        self.sha256: str = self.record["sha256"]
        self.spec: NetworkSpec = checkpoint.spec
        self.multiple = input_multiple(checkpoint.spec)
        self.device = device
        self.by_onnxruntime = isinstance(checkpoint.module, OnnxNetwork)
        self.module, self.running = ready_to_run(checkpoint.module, self.spec, self.multiple, device)

    @property
    def facts(self) -> OnnxFacts | None:
        """What was found out about an ONNX file when it was written or described; of others it is measured."""
        return self.module.facts if isinstance(self.module, OnnxNetwork) else None

    @functools.lru_cache(maxsize=4)  # noqa: B019 - networks are kept, and few
    def engine(self, arithmetic: Arithmetic, compiled: bool = False) -> Engine:
        """Return the engine that runs it.

        Raises
        ------
        ConfigurationError
            If it has no such arithmetic.
        """
        if self.by_onnxruntime and arithmetic != "float32":
            raise ConfigurationError(
                f"{self.path.name} is an ONNX file, which runs in float32 only, not {arithmetic}. Choose the precision "
                "'auto' or 'float32'."
            )
        return Engine(
            self.running,
            self.spec,
            self.device,
            arithmetic,
            compiled=compiled and not self.by_onnxruntime,
            name=self.path.name,
        )


def ready_to_run(
    module: nn.Module, spec: NetworkSpec, multiple: int, device: torch.device
) -> tuple[nn.Module, nn.Module]:
    """Make a network fast without changing what it computes; ``module`` is changed.

    Returns
    -------
    differentiable, running
        In eval mode, normalisations folded into convolutions, channels last: with gradients, and as it is run, on a
        processor without. What onnxruntime computes stays as it is.
    """
    if isinstance(module, OnnxNetwork):
        return module, module
    side = max(128, 4 * multiple)
    example = torch.rand(1, spec.in_channels, side, side, device=device)
    made = fused(module.eval().requires_grad_(False), example)
    made = made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return made, for_processor(made, example) if device.type == "cpu" else made


def loaded_network(path: Path, device: torch.device) -> LoadedNetwork:
    """Return the network of ``path`` on ``device``, from memory if the file is still the one that was loaded.

    Raises
    ------
    CheckpointError
        As :func:`napari_kdseg.networks.load`.
    """
    file = Path(path).expanduser().resolve()
    try:
        found = file.stat()
        state = (found.st_mtime_ns, found.st_size)
    except OSError:
        state = (0, 0)  # what is wrong is said by the loading
    if file.is_dir():  # a folder's own time does not tell of its files
        files = [item.stat() for item in sorted(file.rglob("*")) if item.is_file()]
        state = (
            (max(item.st_mtime_ns for item in files), sum(item.st_size for item in files)) if files else state
        )
    with _one_at_a_time:
        return _load(file, state, device)


@functools.lru_cache(maxsize=KEPT)
def _load(path: Path, _state: tuple[int, int], device: torch.device) -> LoadedNetwork:
    return LoadedNetwork(path, device)
