"""A network as a graph that needs none of this program: torch's ExportedProgram, for images of any size.

Two operators are written in other terms before they go to ONNX, because ONNX has no form of them that takes any size:

- max unpooling (ENet, SegNet) becomes a scatter: every value is put at the place that the pooling remembered;
- adaptive average pooling (PSPNet, UPerNet) becomes two matrix products whose matrices are made from the size.

Both are equal to what they replace; sums of the second may be rounded in another order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from napari_kdseg.errors import CheckpointError, is_out_of_memory

#: Largest side of an image, in pixels.
LARGEST = 1 << 16
#: Sides of the image that the graph is recorded with; networks that pool several times need as much.
_EXAMPLE = (128, 192)


def exported_program(module: nn.Module, name: str, in_channels: int, multiple: int) -> ExportedProgram:
    """Record a network as a graph whose batch, height and width are free.

    Parameters
    ----------
    module
        Float ``[N, in_channels, H, W]`` -> ``[N, classes, H, W]``; in evaluation mode, on the CPU.
    name
        For messages.
    in_channels, multiple
        Its input channels, and what height and width are multiples of, from two times it on.

    Raises
    ------
    CheckpointError
        If its size cannot be left free: a network may be written for images of one size.
    """
    height, width = (max(2, -(-side // multiple)) * multiple for side in _EXAMPLE)
    if height == width:
        width += multiple
    most = LARGEST // multiple
    shape = {
        0: Dim("batch", min=1),
        2: multiple * Dim("rows", min=2, max=most),
        3: multiple * Dim("columns", min=2, max=most),
    }
    try:
        with torch.no_grad():
            image = torch.zeros(2, in_channels, height, width)
            return export(module, (image,), dynamic_shapes=(shape,), strict=False)
    except Exception as error:  # whatever the network's own code or torch's tracing of it raises
        if is_out_of_memory(error):
            raise
        raise CheckpointError(
            f"{name} cannot be written as a graph for images of any size: {_first_line(error)}. "
            "Export its weights (safetensors) instead."
        ) from error


def for_onnx(program: ExportedProgram) -> ExportedProgram:
    """Write what ONNX has no form of in other terms; ``program`` itself where there is none of it."""
    found = {node.target for node in program.graph.nodes if node.op == "call_function"}
    table = {operator: form for operator, form in _FORMS.items() if operator in found}
    return program.run_decompositions(table) if table else program


def _unpooled(values: Tensor, indices: Tensor, output_size: list[int]) -> Tensor:
    """Max unpooling; ``indices`` are those in the flattened image of a channel."""
    count, channels = values.shape[:2]
    height, width = output_size
    empty = values.new_zeros((count, channels, height * width))
    return empty.scatter(2, indices.flatten(2), values.flatten(2)).reshape(count, channels, height, width)


def _adaptively_pooled(image: Tensor, output_size: list[int]) -> Tensor:
    """Adaptive average pooling."""
    rows, columns = (
        _averaging(image, side, cells) for side, cells in zip(image.shape[2:], output_size, strict=True)
    )
    return rows @ image @ columns.T


def _averaging(like: Tensor, side: int, cells: int) -> Tensor:
    """Matrix ``[cells, side]`` that averages the pixels of each cell; cells overlap where they do not come out even."""
    cell = torch.arange(cells, device=like.device)[:, None]
    pixel = torch.arange(side, device=like.device)[None]
    start, end = cell * side // cells, ((cell + 1) * side + cells - 1) // cells
    inside = (pixel >= start) & (pixel < end)
    return inside.to(like.dtype) / (end - start).to(like.dtype)


_FORMS: dict[Any, Callable[..., Tensor]] = {
    torch.ops.aten.max_unpool2d.default: _unpooled,
    torch.ops.aten.adaptive_avg_pool2d.default: _adaptively_pooled,
    torch.ops.aten._adaptive_avg_pool2d.default: _adaptively_pooled,
}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
