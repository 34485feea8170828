"""What stands between tapped layers and a loss: convolutions to the teacher's channels.

A connector is built as ``connector(student_shapes, teacher_shapes)``, is called with the student's features, and
trains with the student; it is not part of the student that is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from napari_kdseg.distillation.losses.common import at_least_float32
from napari_kdseg.distillation.losses.pairs import layer_pairs


class PerLayer(nn.Module):
    """One module for each of several features: called with all of them, returns a tuple of as many."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.of_layer = nn.ModuleList(modules)

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        """Pass each feature ``[N, c, h, w]`` through its module."""
        return tuple(
            module(at_least_float32(feature)) for module, feature in zip(self.of_layer, features, strict=True)
        )


def conv1x1(student_shapes: Sequence[Sequence[int]], teacher_shapes: Sequence[Sequence[int]]) -> PerLayer:
    """Build FitNet's regressor: for each pair of layers a 1x1 convolution to the teacher's channels.

    Parameters
    ----------
    student_shapes, teacher_shapes
        Shapes ``[1, c, h, w]`` of the tapped features, in pairs.

    Raises
    ------
    ConfigurationError
        If there are not as many student as teacher layers.

    Notes
    -----
    FitNets' regressor is a convolution chosen so that the sizes agree. We take 1x1 without bias, as CIRKD does
    (RepDistiller adds batch normalisation and ReLU); sizes are brought together in the loss. It is there even
    where the channels agree: two networks need not name their channels in the same order.
    """
    pairs = layer_pairs(student_shapes, teacher_shapes)
    return PerLayer([nn.Conv2d(s[1], t[1], kernel_size=1, bias=False) for s, t in pairs])


def match_channels(
    student_shapes: Sequence[Sequence[int]], teacher_shapes: Sequence[Sequence[int]]
) -> PerLayer:
    """Build 1x1 convolutions as :func:`conv1x1`, but leave a layer as it is where the channels agree already.

    For FSP, whose matrices of two layers a side must have one shape.

    Raises
    ------
    ConfigurationError
        If there are not as many student as teacher layers.
    """
    pairs = layer_pairs(student_shapes, teacher_shapes)
    return PerLayer(
        [
            nn.Identity() if s[1] == t[1] else nn.Conv2d(s[1], t[1], kernel_size=1, bias=False)
            for s, t in pairs
        ]
    )
