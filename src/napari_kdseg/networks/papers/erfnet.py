"""ERFNet (Romera et al. 2018, IEEE T-ITS), one of CoCo DistillNet's students: residual blocks of 3x1 and 1x3.

2.0631 M parameters for three channels and two classes, batch normalisation and the classifier of the encoder's
pre-training included, which is never read; 2.063 M printed.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_kdseg.networks.papers.blocks import PaperNetwork

_DILATIONS = (2, 4, 8, 16)
_EPSILON = 1e-3


class Downsampler(nn.Module):
    """Stride-2 convolution beside a max pooling: ``[N, c_in, H, W] -> [N, c_out, H/2, W/2]``."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels - in_channels, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(out_channels, eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return functional.relu(
            self.norm(torch.cat([self.conv(x), functional.max_pool2d(x, 2, ceil_mode=True)], dim=1))
        )


class NonBottleneck(nn.Module):
    """Residual block of constant size: two pairs of 3x1 and 1x3 convolutions, the second one dilated."""

    def __init__(self, channels: int, dropout: float, dilation: int = 1):
        super().__init__()
        self.branch = nn.Sequential(
            *_pair(channels, 1), nn.ReLU(inplace=True), *_pair(channels, dilation), nn.Dropout2d(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        """See the class; ``[N, c, h, w] -> [N, c, h, w]``."""
        return functional.relu(x + self.branch(x))


def _pair(channels: int, dilation: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, channels, (3, 1), padding=(dilation, 0), dilation=(dilation, 1)),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, (1, 3), padding=(0, dilation), dilation=(1, dilation)),
        nn.BatchNorm2d(channels, eps=_EPSILON),
    ]


def _up(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1),
        nn.BatchNorm2d(out_channels, eps=_EPSILON),
        nn.ReLU(inplace=True),
    )


class ERFNet(PaperNetwork):
    """Encoder-decoder of 2.06 M parameters.

    Parameters
    ----------
    in_channels
        Channels of the image, fewer than 16.
    classes
        Number of classes.

    Notes
    -----
    Submodules, and the channels and scale of what they put out: ``down1`` 16 at 1/2, ``stage1`` 64 at 1/4, ``stage2``
    128 at 1/8, ``stage3`` 64 at 1/4, ``stage4`` 16 at 1/2, ``classifier`` the logits at full size. Graph-FLow taps the
    beginning of stage 1 (``stage1.0``) and the end of stage 3.

    Dropout is 0.03 in ``stage1`` and 0.3 in ``stage2``, as ERFNet's authors and EMKD have it; in Graph-FLow, the later
    code of CoCo DistillNet's authors, it is 0.1 in both.
    """

    multiple = 8
    output_stride = 8
    last_feature = "stage4"
    named_layers: ClassVar[dict[str, str]] = {
        "@stem": "down1",
        "@shallow": "stage1.0",
        "@middle": "stage2",
        "@bottom": "stage2",
        "@deep": "stage3",
    }
    first_named_layers: ClassVar[dict[str, str]] = {"@shallow": "stage1"}

    def __init__(self, in_channels: int = 3, classes: int = 2):
        super().__init__()
        self.down1 = Downsampler(in_channels, 16)
        self.stage1 = nn.Sequential(Downsampler(16, 64), *(NonBottleneck(64, 0.03) for _ in range(5)))
        self.stage2 = nn.Sequential(
            Downsampler(64, 128), *(NonBottleneck(128, 0.3, dilation) for dilation in _DILATIONS * 2)
        )
        self.encoder_classifier = nn.Conv2d(128, classes, 1)
        self.stage3 = nn.Sequential(_up(128, 64), *(NonBottleneck(64, 0.0) for _ in range(2)))
        self.stage4 = nn.Sequential(_up(64, 16), *(NonBottleneck(16, 0.0) for _ in range(2)))
        self.classifier = nn.ConvTranspose2d(16, classes, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Segment ``x``, float ``[N, in_channels, H, W]`` -> logits ``[N, classes, H, W]``."""
        self.check_size(x)
        return self.classifier(self.stage4(self.stage3(self.stage2(self.stage1(self.down1(x))))))
