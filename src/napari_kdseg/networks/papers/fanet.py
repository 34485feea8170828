"""FANet (Li et al., JBHI 2020) as CoCo DistillNet teaches with it: selective kernels and mixed pooling in a U-Net.

38.292 M parameters for grey images and two classes, of which 38.250 M (printed) are not batch normalisation's; 171.42 G
multiply-adds at 1 x 256 x 256 (171.556 G printed). Neither of the networks of 2020 and 2021 that share its name.

The authors published it compiled only, in Graph-FLow, and three times: all give the same logits, and those of September
2021 and January 2022 tap the same two layers as here.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_kdseg.networks.papers.blocks import GridPool, PaperNetwork, conv_norm, resize
from napari_kdseg.networks.single_image import PooledNorm2d

_WIDTHS = (64, 128, 256, 512)


class SelectiveKernel(nn.Module):
    """A 5x5 and a 3x3 convolution, weighed against each other by what the whole image holds, channel by channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.branches = nn.ModuleList(conv_norm(channels, channels, kernel, bias=True) for kernel in (5, 3))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = conv_norm(channels, channels // 2, 1, bias=True, norm=PooledNorm2d)
        self.weigh = nn.ModuleList(nn.Conv2d(channels // 2, channels, 1) for _ in self.branches)

    def forward(self, x: Tensor) -> Tensor:
        """See the class; ``[N, c, h, w] -> [N, c, h, w]``."""
        seen = torch.stack([branch(x) for branch in self.branches], dim=1)
        summary = self.reduce(self.pool(seen.sum(dim=1)))
        weights = torch.stack([weigh(summary) for weigh in self.weigh], dim=1).softmax(dim=1)
        return (seen * weights).sum(dim=1)


class ResidualBlock(nn.Module):
    """1x1, selective kernels, 1x1, and what came in: ``[N, c_in, h, w] -> [N, c_out, h, w]``."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.branch = nn.Sequential(
            *conv_norm(in_channels, out_channels, 1),
            SelectiveKernel(out_channels),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            *conv_norm(out_channels, out_channels, 1, activation=None),
        )
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else conv_norm(in_channels, out_channels, 1, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return functional.relu(self.branch(x) + self.shortcut(x))


class MixedPooling(nn.Module):
    """Adds to a feature what lies around (pooled to coarse grids) and along its row and column (pooled to strips).

    Parameters
    ----------
    channels
        In and out.
    grids
        Sides of the two coarse grids.
    gated
        The form of the finest level: the grids are put beside the feature instead of added to it, and what the strips
        hold multiplies what came in.
    smooth
        Whether the grids are enlarged bilinearly, as in the strip pooling that this is made from, and not to the
        nearest, as in the authors' code.
    """

    def __init__(self, channels: int, grids: tuple[int, int], *, gated: bool = False, smooth: bool = False):
        super().__init__()
        self.gated, self.smooth = gated, smooth
        coarse = channels // 2 if gated else channels
        self.reduce_around = conv_norm(channels, channels, 1)
        self.reduce_along = conv_norm(channels, channels, 1)
        self.here = conv_norm(channels, channels, activation=None)
        self.around = nn.ModuleList(
            nn.Sequential(GridPool(side), *conv_norm(channels, coarse, activation=None)) for side in grids
        )
        self.rows = conv_norm(channels, channels, (3, 1), activation=None)
        self.columns = conv_norm(channels, channels, (1, 3), activation=None)
        self.mix_around = conv_norm(channels + 2 * coarse if gated else channels, channels)
        self.mix_along = conv_norm(channels, channels)
        self.join = conv_norm(2 * channels, channels, 1, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        """See the class; ``[N, c, h, w] -> [N, c, h, w]``."""
        near, far = self.reduce_around(x), self.reduce_along(x)
        parts = [self.here(near), *(self.enlarge(pooled(near), x.shape[-2:]) for pooled in self.around)]
        around = torch.cat(parts, dim=1) if self.gated else parts[0] + parts[1] + parts[2]
        strips = self.rows(far.mean(dim=3, keepdim=True)) + self.columns(far.mean(dim=2, keepdim=True))
        along = self.mix_along(functional.relu(strips))
        if self.gated:
            along = along * x
        both = torch.cat([self.mix_around(functional.relu(around)), along], dim=1)
        return functional.relu(x + self.join(both))

    def extra_repr(self) -> str:
        """Tell what the weights do not."""
        return f"gated={self.gated}, smooth={self.smooth}"

    def enlarge(self, grid: Tensor, size: torch.Size) -> Tensor:
        """Bring a grid ``[N, c, side, side]`` to ``[N, c, *size]``."""
        return resize(grid, size) if self.smooth else functional.interpolate(grid, size=list(size))


class FANet(PaperNetwork):
    """U-Net of 38.3 M parameters, each level of two blocks with selective kernels.

    Parameters
    ----------
    in_channels
        Channels of the image.
    classes
        Number of classes.
    smooth_grids
        Enlarge the pooled grids bilinearly, which the authors' code does not: revision 1.

    Notes
    -----
    ``encoder[i]`` puts out 64, 128, 256 and 512 channels at 1, 1/2, 1/4 and 1/8; ``up[i]``, ``decoder[i]`` and
    ``pooling[i]`` 256 at 1/4, 128 at 1/2 and 64 at full size. ``unused_classifier`` counts in the printed size and is
    never read.
    """

    multiple = 8
    output_stride = 8
    last_feature = "pooling.2"
    sees_everything = True
    named_layers: ClassVar[dict[str, str]] = {
        "@stem": "encoder.1",
        "@shallow": "encoder.2",
        "@middle": "encoder.3",
        "@bottom": "encoder.3",
        "@deep": "up.0",
    }

    def __init__(self, in_channels: int = 3, classes: int = 2, *, smooth_grids: bool = False):
        super().__init__()
        first, second, third, _ = _WIDTHS
        pairs = zip((in_channels, *_WIDTHS[:-1]), _WIDTHS, strict=True)
        upwards = list(zip(_WIDTHS[:0:-1], _WIDTHS[-2::-1], strict=True))
        self.encoder = nn.ModuleList(_level(above, width) for above, width in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, width, 2, stride=2) for deep, width in upwards)
        self.decoder = nn.ModuleList(_level(2 * width, width) for _, width in upwards)
        self.pooling = nn.ModuleList(
            [
                MixedPooling(third, (3, 6), smooth=smooth_grids),
                MixedPooling(second, (12, 18), smooth=smooth_grids),
                MixedPooling(first, (3, 6), gated=True, smooth=smooth_grids),
            ]
        )
        self.dropout = nn.Dropout2d(0.5)
        self.unused_classifier = nn.Conv2d(first, classes, 1)
        self.classifier = nn.Conv2d(first, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Segment ``x``, float ``[N, in_channels, H, W]`` -> logits ``[N, classes, H, W]``."""
        self.check_size(x)
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        steps = zip(self.up, self.decoder, self.pooling, skips[-2::-1], strict=True)
        for up, block, pooling, skip in steps:
            x = pooling(block(torch.cat([up(x), skip], dim=1)))
        return self.classifier(self.dropout(x))


def _level(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(ResidualBlock(in_channels, out_channels), ResidualBlock(out_channels, out_channels))
