"""U-Net (Ronneberger et al. 2015, arXiv:1505.04597) as EMKD compares with: 64 to 1024 channels, batch normalisation.

Max pooling on the way down, nearest upsampling and a 3x3 convolution on the way up, biased convolutions: 34.526 M
parameters for grey images and two classes (34.5 M printed), 146.87 G multiply-adds at 384 x 384.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_kdseg.networks.papers.blocks import PaperNetwork, conv_norm, double_conv

_WIDTHS = (64, 128, 256, 512, 1024)


class UNet(PaperNetwork):
    """Plain U-Net of 34.5 M parameters.

    Parameters
    ----------
    in_channels
        Channels of the image.
    classes
        Number of classes.

    Notes
    -----
    ``encoder[i]`` puts out 64, 128, 256, 512 and 1024 channels at 1, 1/2, 1/4, 1/8 and 1/16; ``decoder[i]`` goes back
    from 512 at 1/8 to 64 at full size, where ``classifier`` reads. EMKD's code gives the layer at 1/16 to distil from,
    remarking that this may need adjustment; ``@middle`` is the one at 1/8, the size of its students' layers, as the
    paper asks for.
    """

    multiple = 16
    output_stride = 16
    last_feature = "decoder.3"
    named_layers: ClassVar[dict[str, str]] = {
        "@stem": "encoder.1",
        "@shallow": "encoder.2",
        "@middle": "encoder.3",
        "@bottom": "encoder.4",
        "@deep": "decoder.1",
    }

    def __init__(self, in_channels: int = 3, classes: int = 2):
        super().__init__()
        pairs = list(zip((in_channels, *_WIDTHS[:-1]), _WIDTHS, strict=True))
        self.encoder = nn.ModuleList(double_conv(*pair) for pair in pairs)
        upwards = list(zip(_WIDTHS[:0:-1], _WIDTHS[-2::-1], strict=True))
        self.up = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2), *conv_norm(*pair, bias=True)) for pair in upwards
        )
        self.decoder = nn.ModuleList(double_conv(2 * narrow, narrow) for _, narrow in upwards)
        self.classifier = nn.Conv2d(_WIDTHS[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Segment ``x``, float ``[N, in_channels, H, W]`` -> logits ``[N, classes, H, W]``."""
        self.check_size(x)
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for up, block, skip in zip(self.up, self.decoder, skips[-2::-1], strict=True):
            x = block(torch.cat([skip, up(x)], dim=1))
        return self.classifier(x)
