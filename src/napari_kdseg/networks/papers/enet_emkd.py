"""ENet in the form that EMKD (TMI 2021) distils into: projections beside the pooling, PReLU throughout.

0.3538 M parameters (0.353 M printed) and 1.064 G multiply-adds at 3 x 384 x 384. EMKD repeats a grey image three times.
It differs from :class:`~napari_kdseg.networks.papers.enet.ENet` in the pooling of the image (2x2), the inner widths,
the asymmetric pair (one normalisation), the order of convolutions on the way down, the dropout and the classifier.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_kdseg.networks.papers.blocks import PaperNetwork, conv_norm

_DROPOUT = 0.1


class Bottleneck(nn.Module):
    """Residual block of constant size: 1x1 down, a 3x3 (dilated) or 5x1 and 1x5 convolution, 1x1 up."""

    def __init__(self, channels: int, inner: int, dilation: int = 1, asymmetric: bool = False):
        super().__init__()
        if asymmetric:
            tall = nn.Conv2d(inner, inner, (5, 1), padding=(2, 0), bias=False)
            middle = [tall, *conv_norm(inner, inner, (1, 5), activation=nn.PReLU)]
        else:
            middle = [*conv_norm(inner, inner, dilation=dilation, activation=nn.PReLU)]
        self.branch = nn.Sequential(
            *conv_norm(channels, inner, 1, activation=nn.PReLU),
            *middle,
            *conv_norm(inner, channels, 1, activation=None),
            nn.Dropout2d(_DROPOUT),
        )
        self.activation = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """See the class; ``[N, c, h, w] -> [N, c, h, w]``."""
        return self.activation(x + self.branch(x))


class Downsample(nn.Module):
    """Residual block of stride 2; also returns where each maximum lay, for :class:`Upsample`."""

    def __init__(self, in_channels: int, inner: int, out_channels: int):
        super().__init__()
        self.shortcut = conv_norm(in_channels, out_channels, 1, activation=None)
        self.branch = nn.Sequential(
            *conv_norm(in_channels, inner, 1, activation=nn.PReLU),
            nn.Conv2d(inner, inner, 2, stride=2, bias=False),
            nn.BatchNorm2d(inner),
            nn.PReLU(),
            *conv_norm(inner, out_channels, 1, activation=None),
            nn.Dropout2d(_DROPOUT),
        )
        self.activation = nn.PReLU()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See the class; ``[N, c_in, h, w] -> [N, c_out, h/2, w/2]`` and indices ``[N, c_in, h/2, w/2]``."""
        pooled, indices = functional.max_pool2d(x, 2, return_indices=True)
        return self.activation(self.shortcut(pooled) + self.branch(x)), indices


class Upsample(nn.Module):
    """Residual block that doubles the size: max-unpooling to the remembered places beside a transposed convolution."""

    def __init__(self, in_channels: int, inner: int, out_channels: int):
        super().__init__()
        self.shortcut = conv_norm(in_channels, out_channels, 1, activation=None)
        self.branch = nn.Sequential(
            *conv_norm(in_channels, inner, 1, activation=nn.PReLU),
            nn.ConvTranspose2d(inner, inner, 2, stride=2, bias=False),
            nn.BatchNorm2d(inner),
            nn.PReLU(),
            *conv_norm(inner, out_channels, 1, activation=None),
            nn.Dropout2d(_DROPOUT),
        )
        self.activation = nn.PReLU()

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        """See the class; ``[N, c_in, h, w] -> [N, c_out, 2h, 2w]``."""
        return self.activation(functional.max_unpool2d(self.shortcut(x), indices, [2, 2]) + self.branch(x))


class ENetEMKD(PaperNetwork):
    """Encoder-decoder of 0.35 M parameters.

    Parameters
    ----------
    in_channels
        Channels of the image.
    classes
        Number of classes.

    Notes
    -----
    Submodules, and the channels and scale of what they put out: ``initial`` 16 at 1/2, ``stage1`` 64 at 1/4, ``stage2``
    and ``stage3`` 128 at 1/8, ``stage4`` 64 at 1/4, ``stage5`` 16 at 1/2, ``classifier`` the logits at full size.

    EMKD's code makes the fifth block of ``stage3`` and leaves it out when it runs; here it runs, as in ENet's paper and
    EMKD's text. Without it the multiply-adds are 1.024 G, twice which is the printed cost (2.03 GFLOPs) within 1 %.
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

    def __init__(self, in_channels: int = 3, classes: int = 2):
        super().__init__()
        self.first = nn.Conv2d(in_channels, 13, 3, stride=2, padding=1, bias=False)
        self.initial = nn.Sequential(nn.BatchNorm2d(13 + in_channels), nn.PReLU())
        self.down1 = Downsample(13 + in_channels, 16, 64)
        self.stage1 = nn.Sequential(*(Bottleneck(64, 16) for _ in range(4)))
        self.down2 = Downsample(64, 32, 128)
        self.stage2 = _context()
        self.stage3 = _context()
        self.up4 = Upsample(128, 16, 64)
        self.stage4 = nn.Sequential(*(Bottleneck(64, 16) for _ in range(2)))
        self.up5 = Upsample(64, 4, 13 + in_channels)
        self.stage5 = nn.Sequential(Bottleneck(13 + in_channels, 4))
        self.classifier = nn.ConvTranspose2d(13 + in_channels, classes, 2, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Segment ``x``, float ``[N, in_channels, H, W]`` -> logits ``[N, classes, H, W]``."""
        self.check_size(x)
        half = self.initial(torch.cat([self.first(x), functional.max_pool2d(x, 2, ceil_mode=True)], dim=1))
        quarter, indices1 = self.down1(half)
        eighth, indices2 = self.down2(self.stage1(quarter))
        eighth = self.stage3(self.stage2(eighth))
        up = self.stage4(self.up4(eighth, indices2))
        return self.classifier(self.stage5(self.up5(up, indices1)))


def _context() -> nn.Sequential:
    """Eight bottlenecks that widen the view: plain, dilated and asymmetric ones in turn."""
    return nn.Sequential(
        Bottleneck(128, 32),
        Bottleneck(128, 32, dilation=2),
        Bottleneck(128, 32, asymmetric=True),
        Bottleneck(128, 32, dilation=4),
        Bottleneck(128, 32),
        Bottleneck(128, 32, dilation=8),
        Bottleneck(128, 32, asymmetric=True),
        Bottleneck(128, 32, dilation=16),
    )
