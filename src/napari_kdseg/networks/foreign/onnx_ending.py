"""How the output of an ONNX file of another program is to be read: logits or probabilities, classes first or last.

Soft labels are made of logits. A file that ends in a softmax would be flattened a second time, 0.965 to 0.717; so
what it puts out is turned back into logits. Probabilities are known by their numbers, which sum to one over the
classes; a sigmoid by the operator that the graph ends in. What cannot be turned back is refused: a softmax over
another axis, and class numbers or thresholds in the place of a value for each class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from napari_kdseg.errors import CheckpointError
from napari_kdseg.networks.foreign.onnx_file import onnx_package

#: Sums of probabilities in float16 differ from 1 by less, those of anything else by more.
_NEAR_ONE = 5e-3
_SMALLEST, _NEAREST_TO_ONE = torch.finfo(torch.float32).tiny, 1 - 2**-24
#: Operators that leave every value what it is, or a mean of such.
_NO_CHANGE = (
    "Identity",
    "Cast",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Reshape",
    "Resize",
    "Upsample",
    "Slice",
)
_MOST_CHANNELS = 64


class OnnxEnding(BaseModel):
    """How an output is read.

    Attributes
    ----------
    kind
        What the values are.
    classes_last
        Whether it is ``[N, H, W, classes]``.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["logits", "softmax", "sigmoid"] = "logits"
    classes_last: bool = False

    def logits(self, output: Tensor) -> Tensor:
        """Return logits ``[N, classes, H, W]``: of a single output, that of class 1, class 0 is a constant 0."""
        values = output.movedim(-1, 1) if self.classes_last else output
        values = values.float()
        if self.kind == "softmax":
            values = values.clamp_min(_SMALLEST).log()
        elif self.kind == "sigmoid":
            chance = values.clamp(_SMALLEST, _NEAREST_TO_ONE)
            values = chance.log() - torch.log1p(-chance)
        if values.shape[1] == 1:
            values = torch.cat([torch.zeros_like(values), values], dim=1)
        return values.contiguous()

    def notes(self) -> tuple[str, ...]:
        """Say what is done to the output."""
        said = []
        if self.kind != "logits":
            said.append(
                f"It ends in a {self.kind}: its probabilities are turned back into logits, so that soft labels are not "
                "flattened twice."
            )
        if self.classes_last:
            said.append("It puts out channels last, [N, height, width, classes]: the classes are put first.")
        return tuple(said)


def channels_are_last(shape: list[Any]) -> bool:
    """Whether the sizes of a tensor in an ONNX file, numbers or names, are those of ``[N, H, W, channels]``."""
    _, first, _, last = shape
    few = isinstance(last, int) and last <= _MOST_CHANNELS
    return few and (not isinstance(first, int) or first > last)


def refuse_class_numbers(path: Path) -> NoReturn:
    """Refuse a file that puts out which class each pixel is.

    Raises
    ------
    CheckpointError
        With what would do.
    """
    raise CheckpointError(
        f"{path} puts out the numbers of classes (argmax, or a threshold), of which no probability and no soft label "
        "can be made. Export it again without its last step: a value for each class, [N, classes, height, width]."
    )


def find_ending(path: Path, output: np.ndarray, size: tuple[int, int]) -> OnnxEnding:
    """Find out how the output of a network is to be read.

    Parameters
    ----------
    path
        The file: named in messages, and looked into where the numbers do not tell.
    output
        Of one image of noise.
    size
        Height and width of that image; they differ.

    Raises
    ------
    CheckpointError
        If it has no value for each class, or its softmax goes over another axis.
    """
    if _is_threshold(output):
        refuse_class_numbers(path)
    classes_last = output.shape[1:3] == size and output.shape[2:] != size
    values = np.moveaxis(output, -1, 1) if classes_last else output
    kind: Literal["logits", "softmax", "sigmoid"] = "logits"
    if np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1 + _NEAR_ONE:
        kind = _kind_of_probabilities(path, values.astype(np.float64))
    return OnnxEnding(kind=kind, classes_last=bool(classes_last))


def _kind_of_probabilities(path: Path, values: np.ndarray) -> Literal["logits", "softmax", "sigmoid"]:
    """Tell of values ``[1, classes, H, W]`` from 0 to 1 what they are."""
    if values.shape[1] > 1 and _sums_to_one(values, (1,)):
        return "softmax"
    axes = {(2,): "rows", (3,): "columns", (2, 3): "pixels", (1, 2, 3): "classes and pixels together"}
    for axis, over in axes.items():
        if _sums_to_one(values, axis):
            raise CheckpointError(
                f"The softmax that {path} ends in goes over the {over}, not over the classes, so its numbers are no "
                "probabilities of a pixel. Export it again without the softmax, or with the axis of the classes."
            )
    return "sigmoid" if _last_operator(path) in ("Sigmoid", "HardSigmoid") else "logits"


def _sums_to_one(values: np.ndarray, axis: tuple[int, ...]) -> bool:
    return bool(np.abs(values.sum(axis=axis) - 1).max() < _NEAR_ONE)


def _is_threshold(output: np.ndarray) -> bool:
    """Whether all values are whole numbers from 0 on: of noise, no network gives such logits."""
    return bool(output.size and np.isfinite(output).all() and (output == np.abs(np.round(output))).all())


def _last_operator(path: Path) -> str | None:
    """Return the operator that makes the values of the first output."""
    graph = onnx_package("onnx").load(str(path), load_external_data=False).graph
    makers = {name: node for node in graph.node for name in node.output}
    node = makers.get(graph.output[0].name)
    while node is not None and node.op_type in _NO_CHANGE:
        node = makers.get(node.input[0])
    return None if node is None else node.op_type
