"""ENet (Paszke et al. 2016, arXiv:1606.02147), in the form that CoCo DistillNet (BIBM 2021) and Graph-FLow distil into.

PReLU with one slope in the encoder, ReLU in the decoder, no bias in any convolution: 0.3490 M parameters for grey
images and two classes. Branches end in an activation before they are added to the shortcut, but for those of the
upsampling blocks. Each stage is a named submodule, so that feature losses can tap ``stage1`` or ``stage4``.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_kdseg.networks.papers.blocks import Activation, PaperNetwork

_RATIO = 4  # a bottleneck is this many times narrower inside
_WIDTHS = (16, 64, 128)


def _unit(convolution: nn.Module, channels: int, activation: Activation) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(channels), activation()]


class Initial(nn.Module):
    """Stride-2 convolution beside a max pooling of the image: ``[N, C, H, W] -> [N, 16, ceil(H/2), ceil(W/2)]``."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels - in_channels, 3, stride=2, padding=1, bias=False)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(out_channels)
        self.activation = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.activation(self.norm(torch.cat([self.conv(x), self.pool(x)], dim=1)))


class Bottleneck(nn.Module):
    """Residual block of constant size: 1x1 down, a 3x3 (dilated) or 5x1 and 1x5 convolution, 1x1 up."""

    def __init__(
        self,
        channels: int,
        activation: Activation,
        dropout: float = 0.1,
        dilation: int = 1,
        asymmetric: bool = False,
    ):
        super().__init__()
        inner = channels // _RATIO
        if asymmetric:
            tall = nn.Conv2d(inner, inner, (5, 1), padding=(2, 0), bias=False)
            wide = nn.Conv2d(inner, inner, (1, 5), padding=(0, 2), bias=False)
            middle = [*_unit(tall, inner, activation), *_unit(wide, inner, activation)]
        else:
            square = nn.Conv2d(inner, inner, 3, padding=dilation, dilation=dilation, bias=False)
            middle = _unit(square, inner, activation)
        self.branch = nn.Sequential(
            *_unit(nn.Conv2d(channels, inner, 1, bias=False), inner, activation),
            *middle,
            *_unit(nn.Conv2d(inner, channels, 1, bias=False), channels, activation),
            nn.Dropout2d(dropout),
        )
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        """See the class; ``[N, c, h, w] -> [N, c, h, w]``."""
        return self.activation(x + self.branch(x))


class Downsample(nn.Module):
    """Residual block of stride 2; also returns where each maximum lay, for :class:`Upsample`."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float):
        super().__init__()
        inner = in_channels // _RATIO
        self.added = out_channels - in_channels
        self.branch = nn.Sequential(
            *_unit(nn.Conv2d(in_channels, inner, 2, stride=2, bias=False), inner, nn.PReLU),
            *_unit(nn.Conv2d(inner, inner, 3, padding=1, bias=False), inner, nn.PReLU),
            *_unit(nn.Conv2d(inner, out_channels, 1, bias=False), out_channels, nn.PReLU),
            nn.Dropout2d(dropout),
        )
        self.activation = nn.PReLU()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See the class; ``[N, c_in, h, w] -> [N, c_out, h//2, w//2]`` and indices ``[N, c_in, h//2, w//2]``."""
        pooled, indices = functional.max_pool2d(x, 2, return_indices=True)
        padded = functional.pad(pooled, (0, 0, 0, 0, 0, self.added))
        return self.activation(padded + self.branch(x)), indices


class Upsample(nn.Module):
    """Residual block that doubles the size: max-unpooling to the remembered places beside a transposed convolution.

    Its branch ends in batch normalisation, or in ReLU with ``branch_activation``.
    """

    def __init__(self, in_channels: int, out_channels: int, branch_activation: bool):
        super().__init__()
        inner = in_channels // _RATIO
        self.shortcut = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        )
        self.reduce = nn.Sequential(*_unit(nn.Conv2d(in_channels, inner, 1, bias=False), inner, nn.ReLU))
        self.up = nn.ConvTranspose2d(inner, inner, 2, stride=2, bias=False)
        self.expand = nn.Sequential(
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            *([nn.ReLU()] if branch_activation else []),
            nn.Dropout2d(0.1),
        )
        self.activation = nn.ReLU()

    def forward(self, x: Tensor, indices: Tensor, size: list[int]) -> Tensor:
        """See the class; ``[N, c_in, h, w] -> [N, c_out, *size]``, ``size`` being that before the pooling."""
        main = functional.max_unpool2d(self.shortcut(x), indices, [2, 2], output_size=size)
        return self.activation(main + self.expand(self.up(self.reduce(x), output_size=size)))


class ENet(PaperNetwork):
    """Encoder-decoder of 0.35 M parameters.

    Parameters
    ----------
    in_channels
        Channels of the image, fewer than 16.
    classes
        Number of classes.
    upsampling_activation
        End the branches of the two upsampling blocks in ReLU, which the published code does not: revision 1.

    Notes
    -----
    Submodules, and the channels and scale of what they put out: ``initial`` 16 at 1/2, ``stage1`` 64 at 1/4, ``stage2``
    and ``stage3`` 128 at 1/8, ``stage4`` 64 at 1/4, ``stage5`` 16 at 1/2, ``classifier`` the logits at full size.
    Any size from 8 x 8 works.
    """

    multiple = 8
    output_stride = 8
    last_feature = "stage5"
    named_layers: ClassVar[dict[str, str]] = {
        "@stem": "initial",
        "@shallow": "stage1",
        "@middle": "stage3",
        "@bottom": "stage3",
        "@deep": "stage4",
    }

    def __init__(self, in_channels: int = 3, classes: int = 2, *, upsampling_activation: bool = False):
        super().__init__()
        first, middle, deep = _WIDTHS
        self.initial = Initial(in_channels, first)
        self.down1 = Downsample(first, middle, dropout=0.01)
        self.stage1 = nn.Sequential(*(Bottleneck(middle, nn.PReLU, dropout=0.01) for _ in range(4)))
        self.down2 = Downsample(middle, deep, dropout=0.1)
        self.stage2 = _context(deep)
        self.stage3 = _context(deep)
        self.up4 = Upsample(deep, middle, upsampling_activation)
        self.stage4 = nn.Sequential(*(Bottleneck(middle, nn.ReLU) for _ in range(2)))
        self.up5 = Upsample(middle, first, upsampling_activation)
        self.stage5 = nn.Sequential(Bottleneck(first, nn.ReLU))
        self.classifier = nn.ConvTranspose2d(first, classes, 3, stride=2, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Segment ``x``, float ``[N, in_channels, H, W]`` -> logits ``[N, classes, H, W]``."""
        half = self.initial(x)
        quarter, indices1 = self.down1(half)
        quarter = self.stage1(quarter)
        eighth, indices2 = self.down2(quarter)
        eighth = self.stage3(self.stage2(eighth))
        up = self.stage4(self.up4(eighth, indices2, list(quarter.shape[-2:])))
        up = self.stage5(self.up5(up, indices1, list(half.shape[-2:])))
        return self.classifier(up, output_size=list(x.shape[-2:]))


def _context(channels: int) -> nn.Sequential:
    """Eight bottlenecks that widen the view: plain, dilated and asymmetric ones in turn."""
    return nn.Sequential(
        Bottleneck(channels, nn.PReLU),
        Bottleneck(channels, nn.PReLU, dilation=2),
        Bottleneck(channels, nn.PReLU, asymmetric=True),
        Bottleneck(channels, nn.PReLU, dilation=4),
        Bottleneck(channels, nn.PReLU),
        Bottleneck(channels, nn.PReLU, dilation=8),
        Bottleneck(channels, nn.PReLU, asymmetric=True),
        Bottleneck(channels, nn.PReLU, dilation=16),
    )
