"""Mobile U-Net, CoCo DistillNet's student: MobileNetV2 with a decoder of transposed convolutions.

4.682 M parameters for two classes, of which 4.640 M (printed) are not batch normalisation's; 1.492 G multiply-adds
printed at 1 x 256 x 256.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2
from torchvision.models.mobilenetv2 import InvertedResidual

from napari_kdseg.networks.papers.blocks import PaperNetwork, resize

_SKIPS = (1, 3, 6, 13)  # blocks of the encoder whose output the decoder reads
_WIDTHS = (16, 24, 32, 96)


class MobileUNet(PaperNetwork):
    """U-Net on MobileNetV2.

    Parameters
    ----------
    in_channels
        Channels of the image.
    classes
        Number of classes.

    Notes
    -----
    ``encoder[i]`` are the blocks of MobileNetV2: ``[1]`` 16 channels at 1/2, ``[3]`` 24 at 1/4, ``[6]`` 32 at 1/8,
    ``[13]`` 96 at 1/16, ``[18]`` 1280 at 1/32. ``decoder[i]``: 96 at 1/16, 32 at 1/8, 24 at 1/4, 16 at 1/2; from there
    ``reduce`` goes to 3 channels, which ``classifier`` reads.
    """

    multiple = 32
    output_stride = 32
    last_feature = "reduce"
    named_layers: ClassVar[dict[str, str]] = {
        "@stem": "encoder.1",
        "@shallow": "encoder.3",
        "@middle": "encoder.6",
        "@bottom": "encoder.18",
        "@deep": "decoder.2",
    }

    def __init__(self, in_channels: int = 3, classes: int = 2):
        super().__init__()
        self.encoder = mobilenet_v2(weights=None).features
        if in_channels != 3:
            self.encoder[0][0] = nn.Conv2d(in_channels, 32, 3, stride=2, padding=1, bias=False)
        widths = _WIDTHS[::-1]
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(deep, width, 4, stride=2, padding=1)
            for deep, width in zip((1280, *widths[:-1]), widths, strict=True)
        )
        self.decoder = nn.ModuleList(
            InvertedResidual(2 * width, width, stride=1, expand_ratio=6) for width in widths
        )
        self.reduce = nn.Conv2d(_WIDTHS[0], 3, 1)
        self.classifier = nn.Conv2d(3, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Segment ``x``, float ``[N, in_channels, H, W]`` -> logits ``[N, classes, H, W]``."""
        self.check_size(x)
        size, skips = x.shape[-2:], []
        for index, block in enumerate(self.encoder):
            x = block(x)
            if index in _SKIPS:
                skips.append(x)
        for up, block, skip in zip(self.up, self.decoder, skips[::-1], strict=True):
            x = block(torch.cat([skip, up(x)], dim=1))
        return resize(self.classifier(self.reduce(x)), size)
