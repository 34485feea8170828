"""An ONNX file of another program, copied with the description that this program needs to run it."""

from __future__ import annotations

from pathlib import Path

import torch

from napari_kdseg.errors import CheckpointError, InTheWayError, OutputError, explain
from napari_kdseg.files import write_whole
from napari_kdseg.inference.measuring.receptive_field import receptive_field_radius
from napari_kdseg.inference.measuring.tuning import UNSEEN
from napari_kdseg.networks import NetworkSpec
from napari_kdseg.networks.foreign.onnx_file import FOREIGN, OnnxFacts, described, onnx_package
from napari_kdseg.networks.foreign.onnx_network import OnnxNetwork


def describe_onnx(
    source: Path, output: Path, spec: NetworkSpec, multiple: int = 32, *, overwrite: bool = False
) -> OnnxFacts:
    """Write a copy of ``source`` that says what it is, after a look at what it computes.

    Parameters
    ----------
    source
        An ONNX file; its first output are logits or probabilities, of each class or of the second of two.
    output
        The copy.
    spec
        Classes, mean, std and so on; its architecture is set to ``"onnx"``.
    multiple
        What height and width must be multiples of. 32, as for most networks, is safe where 8 or 16 would do.
    overwrite
        Whether ``output`` may be replaced.

    Returns
    -------
    OnnxFacts
        What was measured: how far the network looks, by changing its input.

    Raises
    ------
    KdsegError
        If the file is damaged, is no segmentation network of these classes, or the copy cannot be written.
    """
    onnx = onnx_package("onnx")
    if output.exists() and not overwrite:
        raise InTheWayError(f"{output} is there already. Choose another name, or allow it to be replaced.")
    spec = spec.model_copy(update={"architecture": FOREIGN, "options": {"multiple": multiple}})
    network = OnnxNetwork(source)
    network.described = network.facts = network.ending = None  # what is told now counts
    spec = network.spec(spec)
    ending = network.settle(spec.in_channels, multiple)
    side = 4 * multiple
    with torch.inference_mode():
        shape = list(network(torch.zeros(1, spec.in_channels, side, side)).shape)
    if shape != [1, len(spec.classes), side, side]:
        raise CheckpointError(
            f"{source} gives an output of shape {shape} for an image of {side} x {side} pixels, but a mask of "
            f"{len(spec.classes)} classes needs {[1, len(spec.classes), side, side]}. Name as many classes as it has, "
            "or use a network whose output is as large as its input."
        )
    radius = receptive_field_radius(network, spec.in_channels, multiple)
    facts = OnnxFacts(
        multiple=multiple,
        radius=radius,
        bytes_per_pixel=UNSEEN,
        ends=ending.kind,
        classes_last=ending.classes_last,
    )
    try:
        write_whole(output, described(onnx.load(str(source)), spec, facts))
    except OSError as error:
        raise OutputError(f"{output} was not written. {explain(error)}") from error
    return facts
