"""What the papers' networks share: a convolution with its normalisation, and what every one of them says of itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_kdseg.errors import ConfigurationError

Activation = Callable[[], nn.Module]


class PaperNetwork(nn.Module):
    """Base of the networks here: what other rooms ask of a network, said by its class.

    Attributes
    ----------
    multiple
        What height and width of an image must be a multiple of.
    output_stride
        Input pixels that one pixel of the deepest feature map spans.
    last_feature
        Path of the layer whose output the classifier reads.
    named_layers
        Path of the layer for each of :data:`napari_kdseg.networks.anatomy.named_layers.NAMED_LAYERS` but ``@feature``;
        those that the code of the papers on distillation tapped, where it tapped this network. A class may also call
        it ``roles``, as all did once.
    first_named_layers
        Those that were other layers in revision 1.
    keeps_first_named_layers
        Whether the names still stand for those layers: set for a run that began with them.
    sees_everything
        Whether each output pixel depends on the whole image, by attention or by pooling.
    """

    multiple: ClassVar[int]
    output_stride: ClassVar[int]
    last_feature: ClassVar[str]
    named_layers: ClassVar[dict[str, str]]
    first_named_layers: ClassVar[dict[str, str]] = {}
    keeps_first_named_layers: bool = False
    sees_everything: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "roles" in vars(cls):
            cls.named_layers = vars(cls)["roles"]

    def check_size(self, image: Tensor) -> None:
        """Refuse an image ``[N, C, H, W]`` whose sides are no multiples; while exporting, nothing is looked at."""
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            return
        height, width = image.shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise ConfigurationError(
                f"{type(self).__name__} takes images whose sides are multiples of {self.multiple} pixels, but this one "
                f"has {height} x {width}. Choose such a size, or pad the image."
            )


class GridPool(nn.Module):
    """Adaptive average pooling to ``side x side`` cells, which a network for any size of image can be exported with.

    Exporters know adaptive pooling only for sizes that are fixed; while exporting, the same averages are matrix
    products.
    """

    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``[N, C, h, w] -> [N, C, side, side]``."""
        if not torch.compiler.is_exporting():
            return functional.adaptive_avg_pool2d(x, self.side)
        return self.averages(x.shape[-2], x) @ x @ self.averages(x.shape[-1], x).T

    def averages(self, length: int, like: Tensor) -> Tensor:
        """Give the weights ``[side, length]`` that turn ``length`` values into the averages of ``side`` cells."""
        positions = torch.arange(length, device=like.device)
        cells = torch.arange(self.side, device=like.device)[:, None]
        begin = cells * length // self.side
        end = ((cells + 1) * length + self.side - 1) // self.side
        inside = ((positions >= begin) & (positions < end)).to(like.dtype)
        return inside / inside.sum(dim=1, keepdim=True)


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int | tuple[int, int] = 3,
    *,
    activation: Activation | None = nn.ReLU,
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    bias: bool = False,
    **options: Any,
) -> nn.Sequential:
    """Make a convolution that keeps the size (at stride 1), its normalisation and, unless None, its activation."""
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = tuple(options.get("dilation", 1) * (side // 2) for side in sides)
    convolution = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, bias=bias, **options)
    return nn.Sequential(convolution, norm(out_channels), *([activation()] if activation else []))


def double_conv(in_channels: int, out_channels: int, *, bias: bool = True) -> nn.Sequential:
    """Make the block of U-Nets: twice a 3x3 convolution, batch normalisation and ReLU."""
    return nn.Sequential(
        *conv_norm(in_channels, out_channels, bias=bias), *conv_norm(out_channels, out_channels, bias=bias)
    )


def resize(
    x: Tensor, size: torch.Size | tuple[int, int] | list[int], *, align_corners: bool = False
) -> Tensor:
    """Bring ``[N, C, h, w]`` to ``[N, C, *size]`` by bilinear interpolation.

    With ``align_corners`` the centres of corner pixels coincide, so that where a pixel of ``x`` comes to lie depends on
    the size of the image.
    """
    return functional.interpolate(x, size=list(size), mode="bilinear", align_corners=align_corners)
