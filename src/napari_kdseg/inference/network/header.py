"""What a checkpoint says of its network, read from its header: enough to show it, without its weights in memory."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from napari_kdseg.errors import CheckpointError, CodeNotAllowedError, ConfigurationError
from napari_kdseg.networks import NetworkSpec, count_parameters, create_from, load
from napari_kdseg.networks.checkpoints.formats import Format, read_spec, resolve, sniff
from napari_kdseg.networks.checkpoints.misfit import weights_misfit
from napari_kdseg.networks.foreign.onnx_network import OnnxNetwork


@dataclass(frozen=True)
class NetworkHeader:
    """A network as its file describes it; ``parameters`` is ``None`` where their number is not known.

    ``notes`` say what was decided of a file of another program.
    """

    spec: NetworkSpec
    parameters: int | None
    notes: tuple[str, ...] = ()


def read_header(path: str | Path) -> NetworkHeader:
    """Read what network a checkpoint holds, and see that its weights are those of this network.

    Parameters
    ----------
    path
        As :func:`napari_kdseg.networks.load` takes it. Of a checkpoint of this project only the header is read;
        files of other programs have no such header, and are loaded.

    Raises
    ------
    CheckpointError
        If the file is missing or damaged, or its weights are not those of the network that it describes.
    KdsegError
        What else :func:`napari_kdseg.networks.load` says of a file that cannot be used as it is.
    """
    file = resolve(path)
    spec = read_spec(file) if sniff(file) is Format.SAFETENSORS else None
    if spec is None:
        return _header_of_other_programs(file)
    try:
        module = build_blank(spec)
    except CodeNotAllowedError:
        raise
    except ConfigurationError as error:
        raise CheckpointError(f"The network described in {file} cannot be built. {error}") from error
    if problem := weights_misfit(_shapes(file), module, spec, f"This checkpoint ({file.name})"):
        raise CheckpointError(problem)
    return NetworkHeader(spec, count_parameters(module))


def build_blank(spec: NetworkSpec) -> nn.Module:
    """Build a network in eval mode with random weights, an encoder without memory for them.

    The program's random numbers stay as they are.
    """
    with torch.random.fork_rng(devices=[]), nullcontext() if spec.segments else torch.device("meta"):
        return create_from(spec).eval()


def _shapes(file: Path) -> dict[str, torch.Size]:
    with safe_open(file, framework="pt") as tensors:
        return {name: torch.Size(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118


def _header_of_other_programs(file: Path) -> NetworkHeader:
    checkpoint = load(file)
    facts = checkpoint.module.facts if isinstance(checkpoint.module, OnnxNetwork) else None
    parameters = count_parameters(checkpoint.module) or (facts.parameters if facts else None)
    return NetworkHeader(checkpoint.spec, parameters, checkpoint.notes)
