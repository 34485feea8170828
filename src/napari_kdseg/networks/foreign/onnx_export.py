"""A network -> bytes of an ONNX file that holds its description, compared with PyTorch before anybody gets it."""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from napari_kdseg.errors import CheckpointError, OutputError
from napari_kdseg.networks.foreign.onnx_file import LARGEST, OnnxFacts, described, onnx_package
from napari_kdseg.networks.foreign.onnx_network import OnnxNetwork
from napari_kdseg.networks.foreign.portable import for_onnx
from napari_kdseg.networks.spec import NetworkSpec

#: Difference of a logit, against the largest logit, that rounding in another order explains.
TOLERANCE = 1e-4
#: Share of logits that may differ by more: where two pixels tie for the maximum of a pooling, rounding decides which of
#: them is remembered, and max unpooling (ENet) puts the value there. PyTorch's own devices differ by the same.
TIED = 0.01
#: Images that outputs are compared on: number, and sides at least; none is what the graph was recorded with.
COMPARED = ((1, 160, 128), (2, 128, 224))


def to_onnx(
    program: ExportedProgram, module: nn.Module, spec: NetworkSpec, facts: OnnxFacts
) -> tuple[bytes, OnnxFacts]:
    """Translate a network and compare the outputs of onnxruntime with its own.

    Parameters
    ----------
    program
        From :func:`napari_kdseg.networks.foreign.portable.exported_program`.
    module
        The network it was recorded from.
    spec, facts
        Written into the file.

    Returns
    -------
    bytes, OnnxFacts
        The file, and ``facts`` with the largest difference that was found.

    Raises
    ------
    CheckpointError
        If it cannot be translated, or computes something else.
    OutputError
        If it is too large for one ONNX file.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        onnx_package(package)
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if size > LARGEST:
        raise OutputError(
            f"{spec.architecture} has {size / 1e9:.1f} GB of weights, and one ONNX file holds 2 GB. "
            "Export it as pt2 or safetensors."
        )
    model = _translated(program, spec)
    with tempfile.TemporaryDirectory(prefix="kdseg-") as folder:
        file = Path(folder) / "network.onnx"
        file.write_bytes(described(model, spec, facts))
        difference = largest_difference(module, OnnxNetwork(file), spec.in_channels, facts.multiple)
    facts = facts.model_copy(update={"largest_difference": difference})
    return described(model, spec, facts), facts


def largest_difference(module: nn.Module, other: nn.Module, in_channels: int, multiple: int) -> float:
    """Return the largest difference of a logit on images of noise of two sizes, alone and in a batch.

    Raises
    ------
    CheckpointError
        If they differ by more than rounding explains.
    """
    worst = 0.0
    generator = torch.Generator().manual_seed(0)
    for count, *sides in COMPARED:
        height, width = (-(-side // multiple) * multiple for side in sides)
        image = torch.randn(count, in_channels, height, width, generator=generator)
        with torch.no_grad():
            wanted, got = module(image), other(image)
        if got.shape != wanted.shape:
            raise CheckpointError(
                f"The exported network gives an output of shape {list(got.shape)} where PyTorch gives "
                f"{list(wanted.shape)}, so it was not written. Export its weights (safetensors) instead."
            )
        differences = (got - wanted).abs()
        difference = float(differences.max())
        near = differences <= TOLERANCE * max(float(wanted.abs().max()), 1e-6)  # not a number is not near
        if float((~near).float().mean()) > TIED:
            raise CheckpointError(
                f"The outputs of the exported network differ from PyTorch's by {difference:.1e}, so it was not "
                "written. Export its weights (safetensors) instead."
            )
        worst = max(worst, difference)
    return worst


def _translated(program: ExportedProgram, spec: NetworkSpec) -> Any:
    """Return the ``onnx.ModelProto``."""
    talkative = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in talkative]
    try:
        for logger in talkative:  # each rule it tries to make a graph smaller by is worth a line to it
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            made = torch.onnx.export(
                for_onnx(program),
                (),
                dynamo=True,
                verbose=False,
                input_names=["image"],
                output_names=["logits"],
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{spec.architecture} cannot be written as ONNX: {reason}. Export it as pt2 or safetensors."
        ) from error
    finally:
        for logger, level in zip(talkative, levels, strict=True):
            logger.setLevel(level)
    assert made is not None, "it is only for a file that nothing is returned"
    model = made.model_proto
    for tensor, channels in ((model.graph.input[0], "channels"), (model.graph.output[0], "classes")):
        for size, name in zip(
            tensor.type.tensor_type.shape.dim, ("batch", channels, "height", "width"), strict=True
        ):
            if not size.HasField("dim_value"):
                size.dim_param = name
    return model
