"""ESPNet (Mehta et al. 2018, arXiv:1803.06815), p = 2 and q = 3, as EMKD distils into it.

0.1837 M parameters (0.183 M printed) and 0.6145 G multiply-adds at 3 x 384 x 384 (1.23 GFLOPs printed).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_kdseg.networks.papers.blocks import PaperNetwork

_DILATIONS = (1, 2, 4, 8, 16)
_EPSILON = 1e-3


def _norm(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels, eps=_EPSILON), nn.PReLU(channels)]


class DilatedPyramid(nn.Module):
    """Spatial pyramid of dilated convolutions: ``[N, c_in, H, W] -> [N, c_out, H/stride, W/stride]``.

    A convolution reduces to a fifth of the channels; five 3x3 ones of growing dilation read it, and each sum of the
    dilated ones so far stands beside the undilated one (hierarchical fusion against gridding).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, residual: bool = True
    ):
        super().__init__()
        inner = out_channels // len(_DILATIONS)
        widest = out_channels - inner * (
            len(_DILATIONS) - 1
        )  # of the undilated one, so that the sum is c_out
        self.residual = residual
        self.reduce = nn.Conv2d(in_channels, inner, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.branches = nn.ModuleList(
            nn.Conv2d(
                inner, inner if dilation > 1 else widest, 3, padding=dilation, dilation=dilation, bias=False
            )
            for dilation in _DILATIONS
        )
        self.norm = nn.Sequential(*_norm(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        reduced = self.reduce(x)
        parts = [self.branches[0](reduced), self.branches[1](reduced)]
        for branch in self.branches[2:]:
            parts.append(parts[-1] + branch(reduced))
        merged = torch.cat(parts, dim=1)
        return self.norm(x + merged if self.residual else merged)


def _down(in_channels: int, out_channels: int) -> DilatedPyramid:
    return DilatedPyramid(in_channels, out_channels, kernel=3, stride=2, residual=False)


def _half(image: Tensor) -> Tensor:
    return functional.avg_pool2d(image, 3, stride=2, padding=1)


class ESPNet(PaperNetwork):
    """Encoder-decoder of 0.18 M parameters that shows the image to its deeper levels again.

    Parameters
    ----------
    in_channels
        Channels of the image.
    classes
        Number of classes.

    Notes
    -----
    Submodules, and the channels and scale of what they put out, for three channels and C classes: ``level1`` 16 at 1/2,
    ``join1`` 19 at 1/2, ``join2`` 131 at 1/4, ``join3`` 256 at 1/8, ``merge`` 5 at 1/4, ``fuse`` C at 1/2,
    ``classifier`` the logits. EMKD taps ``level1`` and ``join3``.
    """

    multiple = 8
    output_stride = 8
    last_feature = "fuse"
    named_layers: ClassVar[dict[str, str]] = {
        "@stem": "level1",
        "@shallow": "join2",
        "@middle": "join3",
        "@bottom": "join3",
        "@deep": "merge",
    }
    first_named_layers: ClassVar[dict[str, str]] = {"@stem": "join1"}

    def __init__(self, in_channels: int = 3, classes: int = 2):
        super().__init__()
        first, second = 16 + in_channels, 128 + in_channels
        self.level1 = nn.Sequential(
            nn.Conv2d(in_channels, 16, 3, stride=2, padding=1, bias=False), *_norm(16)
        )
        self.join1 = nn.Sequential(*_norm(first))
        self.down2 = _down(first, 64)
        self.level2 = nn.Sequential(*(DilatedPyramid(64, 64) for _ in range(2)))
        self.join2 = nn.Sequential(*_norm(second))
        self.down3 = _down(second, 128)
        self.level3 = nn.Sequential(*(DilatedPyramid(128, 128) for _ in range(3)))
        self.join3 = nn.Sequential(*_norm(256))

        self.classify3 = nn.Sequential(
            nn.Conv2d(256, classes, 1, bias=False),
            nn.BatchNorm2d(classes, eps=_EPSILON),
            nn.ConvTranspose2d(classes, classes, 2, stride=2, bias=False),
        )
        self.classify2 = nn.Conv2d(second, classes, 1, bias=False)
        self.merge = nn.Sequential(*_norm(2 * classes), DilatedPyramid(2 * classes, 5, residual=False))
        self.up = nn.Sequential(nn.ConvTranspose2d(5, classes, 2, stride=2, bias=False), *_norm(classes))
        self.fuse = nn.Sequential(
            nn.Conv2d(first + classes, classes, 3, padding=1, bias=False), *_norm(classes)
        )
        self.classifier = nn.ConvTranspose2d(classes, classes, 2, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Segment ``x``, float ``[N, in_channels, H, W]`` -> logits ``[N, classes, H, W]``."""
        self.check_size(x)
        half_image = _half(x)
        half = self.join1(torch.cat([self.level1(x), half_image], dim=1))
        quarter = self.down2(half)
        quarter = self.join2(torch.cat([self.level2(quarter), quarter, _half(half_image)], dim=1))
        eighth = self.down3(quarter)
        eighth = self.join3(torch.cat([eighth, self.level3(eighth)], dim=1))
        up = self.merge(torch.cat([self.classify2(quarter), self.classify3(eighth)], dim=1))
        return self.classifier(self.fuse(torch.cat([self.up(up), half], dim=1)))
