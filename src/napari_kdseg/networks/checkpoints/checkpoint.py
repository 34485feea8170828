"""Networks on disk: safetensors with the spec as JSON in its header.

A file is written whole or not at all, and read strictly or not at all.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from napari_kdseg.errors import (
    CheckpointError,
    CodeNotAllowedError,
    ConfigurationError,
    OutputError,
    WeightsOnlyError,
    explain,
)
from napari_kdseg.files import write_whole
from napari_kdseg.networks.anatomy.describe import unwrap
from napari_kdseg.networks.build import create_from
from napari_kdseg.networks.checkpoints.formats import (
    HEADER_KEY,
    Format,
    read_spec,
    resolve,
    sniff,
    weights_only_message,
)
from napari_kdseg.networks.checkpoints.keys import NamedWeights, fitting_names
from napari_kdseg.networks.checkpoints.misfit import refuse_not_finite, spec_misfit, weights_misfit
from napari_kdseg.networks.checkpoints.smp_folder import with_background, without_image_head
from napari_kdseg.networks.checkpoints.weights import read_weights
from napari_kdseg.networks.foreign.onnx_network import OnnxNetwork
from napari_kdseg.networks.foreign.token_grid import TokenGrid, as_timm, from_transformers
from napari_kdseg.networks.spec import NetworkSpec


@dataclass(frozen=True)
class Checkpoint:
    """A network read from disk: the module in evaluation mode, what it is, and where it came from.

    ``new_head`` names the weights that were not taken from the file because it has other classes; they are random.
    ``notes`` say in sentences what was decided of what the file holds: averaged weights, what was left out.
    """

    module: nn.Module
    spec: NetworkSpec
    path: Path
    new_head: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def save(path: str | Path, module: nn.Module, spec: NetworkSpec) -> Path:
    """Write a network so that it can be built and loaded again from the file alone.

    The file appears whole or not at all; one that was there before stays as it was until the new one is safely on disk.

    Parameters
    ----------
    path
        Ends in ``.safetensors``. Folders on the way are made.
    module
        The network, on any device; wrappers of DDP, lightning-fabric and ``torch.compile`` are taken off.
    spec
        Its description. Where ``versions`` is empty, those of the present software are filled in.

    Returns
    -------
    Path
        Where it lies.

    Raises
    ------
    OutputError
        If the place cannot be written to.
    CheckpointError
        If ``spec`` describes another network than ``module``, whose file could not be read again.
    """
    path = Path(path).expanduser()
    if path.suffix != ".safetensors":
        raise OutputError(
            f"A checkpoint's name ends in .safetensors, but {path.name!r} does not. Choose {path.stem}.safetensors."
        )
    if not spec.versions:
        spec = spec.model_copy(update={"versions": _versions()})
    state = unwrap(module).state_dict()
    shapes = {key: tensor.shape for key, tensor in state.items()}
    if problem := weights_misfit(shapes, _blank(_structure(spec)), spec, "The network to be saved"):
        raise CheckpointError(problem)
    content = to_bytes(_separate(state), metadata={HEADER_KEY: spec.model_dump_json(), "format": "pt"})
    try:
        write_whole(path, content)
    except OSError as error:
        reason = explain(error)
        if error.errno == errno.EFBIG:
            reason = "It is larger than a file may be there. Choose another folder or ask for a larger limit."
        raise OutputError(
            f"The checkpoint {path} was not written; what was there before is untouched. {reason}"
        ) from error
    return path


def load(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    expect: NetworkSpec | None = None,
    new_head: Sequence[str] | None = None,
) -> Checkpoint:
    """Read a network.

    Parameters
    ----------
    path
        A checkpoint of this project, a ``save_pretrained`` folder of segmentation-models-pytorch, a bundle of MONAI, or
        weights as training programs write them (.safetensors, .pt, .pth, .ckpt of Lightning): nested under
        ``state_dict``, ``model``, ``ema`` ... , with ``module.``, ``model.`` or any other prefix before the names; or
        an ONNX file (:class:`~napari_kdseg.networks.foreign.onnx_network.OnnxNetwork`).
    device
        Where the network goes.
    expect
        What the network must be: architecture, options, number of classes and of channels. A file of weights only
        needs it. Where a file does not say what its classes are called or how images are normalised (only this
        project's do), that is taken from here.
    new_head
        Names of the classes the network is to have. Where the file has another number of classes, the layers that put
        them out get new random weights, and have to be trained.

    Returns
    -------
    Checkpoint
        The module is in evaluation mode, with every weight from the file but those of a new head.

    Raises
    ------
    CheckpointError
        If the file is missing or damaged, holds more than weights, or does not fit, or its weights are NaN or
        infinite.
    ConfigurationError
        If the device is not there, or ``expect`` names no network.
    """
    target = _device(device)
    file = resolve(path)
    subject = f"This checkpoint ({file.name})"
    if sniff(file) is Format.ONNX:
        network = OnnxNetwork(file)
        return Checkpoint(network.eval(), network.spec(expect), file, notes=network.notes)
    own = read_spec(file)
    state = read_weights(file)
    spec = own or expect
    if spec is None:
        raise WeightsOnlyError(weights_only_message(file))
    if new_head is not None:
        spec, expect = (with_classes(one, new_head) if one else None for one in (spec, expect))
        assert spec is not None
        own = own and spec
    try:
        module = _build(spec)
    except CodeNotAllowedError:
        raise
    except ConfigurationError as error:
        if own is None:
            raise
        raise CheckpointError(f"The network described in {file} cannot be built. {error}") from error
    if own and expect and (problem := spec_misfit(own, expect, subject)):
        raise CheckpointError(problem)
    notes: tuple[str, ...] = ()
    if own is None or file.is_dir():  # written by another program
        named = _named_alike(state, module, subject)
        state, notes = named.tensors, named.notes
        state = without_image_head(with_background(state, module))
        spec = expect or spec
    head = _replace_head(state, module, spec) if new_head is not None else ()
    _fill(module, state, spec, subject)
    return Checkpoint(module.eval().to(target), spec, file, head, notes)


def with_classes(spec: NetworkSpec, classes: Sequence[str]) -> NetworkSpec:
    """Describe the network with other classes; what was said of the old ones (colours, scores) is left out."""
    if len(spec.classes) == len(classes):
        return spec
    return NetworkSpec(**(spec.model_dump() | {"classes": tuple(classes), "colours": None, "metrics": {}}))


def _replace_head(state: dict[str, Tensor], module: nn.Module, spec: NetworkSpec) -> tuple[str, ...]:
    """Put the network's own random weights in the place of those for another number of classes."""
    replaced = []
    before: set[int] = set()
    for key, tensor in module.state_dict().items():
        found = state.get(key)
        if found is None or found.shape == tensor.shape or found.ndim != tensor.ndim:
            continue
        differ = [(a, b) for a, b in zip(found.shape, tensor.shape, strict=True) if a != b]
        if len(differ) == 1 and differ[0][1] == len(spec.classes):
            before.add(differ[0][0])
            replaced.append(key)
    if len(before) == 1:  # more: these are no classes, but layers of other sizes
        state.update({key: tensor for key, tensor in module.state_dict().items() if key in replaced})
        return tuple(replaced)
    return ()


def _named_alike(state: dict[str, Tensor], module: nn.Module, subject: str) -> NamedWeights:
    if isinstance(module, TokenGrid):
        inner = fitting_names(from_transformers(state), _shapes(module.vit), subject, _buffers(module.vit))
        outer = fitting_names(as_timm(inner.tensors, module), _shapes(module), subject, _buffers(module))
        return NamedWeights(outer.tensors, inner.notes + outer.notes)
    return fitting_names(state, _shapes(module), subject, _buffers(module))


def _buffers(module: nn.Module) -> set[str]:
    return module.state_dict().keys() - {name for name, _ in module.named_parameters(remove_duplicate=False)}


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in module.state_dict().items()}


def _fill(module: nn.Module, state: dict[str, Tensor], spec: NetworkSpec, subject: str) -> None:
    try:
        # An encoder was built without memory for its weights (see _build), and takes those of the file themselves.
        module.load_state_dict(dict(state), strict=True, assign=not spec.segments)
    except RuntimeError as error:
        shapes = {key: tensor.shape for key, tensor in state.items()}
        problem = weights_misfit(shapes, module, spec, subject)
        raise CheckpointError(problem or f"{subject} cannot be loaded: {error}") from error
    masks = {name for name in _buffers(module) if ".running_" not in f".{name}"}
    refuse_not_finite(module.state_dict(), subject, masks)


def _build(spec: NetworkSpec) -> nn.Module:
    """Build without drawing from the program's random generator: loading must not change what is trained next."""
    with torch.random.fork_rng(devices=[]), nullcontext() if spec.segments else torch.device("meta"):
        return create_from(spec)


def _structure(spec: NetworkSpec) -> str:
    return spec.model_dump_json(include={"architecture", "in_channels", "classes", "options", "revision"})


@functools.lru_cache(maxsize=8)
def _blank(structure: str) -> nn.Module:
    """Keep the shapes of a network, without memory for its weights; built once for a file saved every epoch."""
    return _build(NetworkSpec.model_validate_json(structure)).to("meta")


def _device(device: str | torch.device) -> torch.device:
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigurationError(
            f"The device {device!s} cannot be used on this computer. Choose cpu."
        ) from error
    return found


def _separate(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Bring tensors to the CPU, contiguous and each with memory of its own, as safetensors wants them."""
    seen: set[int] = set()
    separate = {}
    for key, tensor in state.items():
        tensor = tensor.detach().to("cpu").contiguous()
        memory = tensor.untyped_storage().data_ptr()
        separate[key] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return separate


def _versions() -> dict[str, str]:
    packages = ("napari-kdseg", "torch", "segmentation-models-pytorch", "timm")
    return {package: version(package) for package in packages}
