"""Pair-wise distillation: similarities between the nodes of a feature map.

Liu et al.: Structured Knowledge Distillation for Semantic Segmentation. CVPR 2019 (arXiv 1903.04197),
the pair-wise equation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_kdseg.distillation.losses.common import EPSILON, at_least_float32, labelled_on_grid
from napari_kdseg.errors import ConfigurationError

MOST_NODES = 2**14
"""More nodes than this are refused: the similarities of one image take a GiB."""


def pair_wise(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    *,
    nodes: int = 32,
    window: float | None = None,
    constant_norm: bool = False,
    ignore_index: int = 255,
) -> Tensor:
    r"""Squared difference of the cosine similarities between all pairs of nodes.

    A node is a cell of a grid laid over the feature map, described by the maximum of each channel inside the cell.
    With :math:`U` the nodes' vectors divided by their length, :math:`A = U U^\top` and :math:`R` the number of nodes,

    .. math::
        L = \frac{1}{N} \sum_n \frac{1}{R^2} \sum_{i,j} \bigl(A^S_{ij} - A^T_{ij}\bigr)^2

    Parameters
    ----------
    student, teacher
        Features ``[N, c, h, w]``; channels and sizes may differ, because only similarities are compared. No
        gradient flows into the teacher.
    target
        ``[N, H, W]`` labels, read only to leave out ignored pixels: they are not pooled, and a node without a
        labelled pixel is left out. ``None`` counts every pixel.
    nodes
        Nodes along each side, at least 1. A map with fewer pixels along a side has as many nodes as pixels.
    window
        Side of the cells, in place of ``nodes``: below 1 a share of each side of the map, rounded down to pixels
        (0.5 in SKD's code), from 1 a whole number of pixels (2 in CIRKD's). What is left over at the far edges
        makes cells of its own: windows of half of 65 pixels are 32, 32 and 1 pixels long.
    constant_norm
        Whether the vectors' length is a constant for the gradient, as in SKD's code, not a function of the feature.
    ignore_index
        Label of pixels that count for nothing.

    Returns
    -------
    Tensor
        Scalar float32 between 0 and 4, 0 where the similarities agree; 0 with a graph if no pixel counts.

    Raises
    ------
    ConfigurationError
        If ``nodes`` is below 1, ``window`` is no size, or more than :data:`MOST_NODES` nodes would be compared.

    Notes
    -----
    - *Nodes.* The paper speaks of all pixels. Its code pools windows of half the map, which makes 2 nodes along an
      even side and 3 along an odd one, the last of a single row of pixels. CIRKD has windows of 2 x 2 pixels, whose
      matrices take 16 MiB an image for its features of 64 x 128. 32 nodes a side are those windows on a map of 64
      pixels, and take 4 MiB whatever the size of the map.
    - *Scale.* The maxima of large cells resemble each other, so the value falls steeply with the number of nodes: on
      random maps of 64 x 64 pixels, windows of half the map give a thousandth of what windows of two pixels give. A
      weight belongs to a number of nodes.
    - *Cells* of ``nodes``, and of a ``window`` on the larger of two maps that differ in size, are those of adaptive
      pooling, so that teacher and student have the same nodes.
    - *Norm.* With a constant norm the gradient has a part along the vector itself, which the loss cannot see.
    """
    grid, windows = _grid(student, teacher, nodes, window)
    with torch.autocast(student.device.type, enabled=False):
        pool = partial(_pool, grid=grid, windows=windows)
        similarities = partial(
            _similarities, pool=pool, target=target, constant_norm=constant_norm, ignore_index=ignore_index
        )
        of_student, student_has = similarities(at_least_float32(student))
        of_teacher, teacher_has = similarities(at_least_float32(teacher.detach()))
        both = student_has & teacher_has
        pairs = both.unsqueeze(1) & both.unsqueeze(2)
        squares = torch.where(pairs, (of_student - of_teacher).square(), 0.0).sum((1, 2))
        of_image = squares / pairs.sum((1, 2)).clamp(min=1)
        return of_image.sum() / both.any(dim=1).sum().clamp(min=1)


def _grid(
    student: Tensor, teacher: Tensor, nodes: int, window: float | None
) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """Return how many cells there are along both sides, and the windows' sides on the smaller map if they are given."""
    height, width = (min(a, b) for a, b in zip(student.shape[-2:], teacher.shape[-2:], strict=True))
    if window is None:
        if nodes < 1:
            raise ConfigurationError(f"There must be at least one node along each side, not {nodes}.")
        grid, windows = (min(nodes, height), min(nodes, width)), None
    else:
        if window <= 0 or (window > 1 and window != int(window)):
            raise ConfigurationError(
                f"A window must be a share of the map's side between 0 and 1 or a whole number of pixels, not {window}."
            )
        sides = (window * side if window < 1 else min(window, side) for side in (height, width))
        rows, columns = (max(int(side), 1) for side in sides)
        grid, windows = (-(-height // rows), -(-width // columns)), (rows, columns)
    if grid[0] * grid[1] > MOST_NODES:
        raise ConfigurationError(
            f"Pair-wise distillation would compare {grid[0]} x {grid[1]} nodes, each with every other, which takes "
            f"{(grid[0] * grid[1]) ** 2 / 2**28:.0f} GiB an image. Take at most {MOST_NODES}: fewer nodes, larger "
            "windows, or a coarser layer."
        )
    return grid, windows


def _pool(values: Tensor, grid: tuple[int, int], windows: tuple[int, int] | None) -> Tensor:
    """Maximum of each cell: of the windows where they make the grid on this map, of adaptive pooling otherwise."""
    if windows and grid == tuple(-(-side // w) for side, w in zip(values.shape[-2:], windows, strict=True)):
        return F.max_pool2d(values, windows, ceil_mode=True)
    return F.adaptive_max_pool2d(values, grid)


def _similarities(
    feature: Tensor,
    pool: Callable[[Tensor], Tensor],
    target: Tensor | None,
    constant_norm: bool,
    ignore_index: int,
) -> tuple[Tensor, Tensor]:
    """Cosine similarities of the nodes ``[N, R, R]``, and which nodes hold a labelled pixel ``[N, R]``."""
    labelled = labelled_on_grid(target, feature, ignore_index).unsqueeze(1)
    has_pixels = pool(labelled.float()) > 0
    pooled = pool(feature.masked_fill(~labelled, -torch.inf))
    vectors = torch.where(has_pixels, pooled, 0.0).flatten(2)
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp(min=EPSILON)
    unit = vectors / (length.detach() if constant_norm else length)
    return unit.transpose(1, 2) @ unit, has_pixels.flatten(1)
