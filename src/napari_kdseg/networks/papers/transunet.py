"""TransUNet (Chen et al. 2021, arXiv:2102.04306), R50-ViT-B/16: PLC-KD's teacher.

ResNetV2-50 without its last stage, twelve layers of a vision transformer on its map at 1/16, a decoder with three
skips: 105.276 M parameters and 28.47 G multiply-adds at 3 x 224 x 224.

Encoder and transformer are timm's, in its form for R50+ViT-B/16: pooling is padded, and the group normalisation of
shortcuts has 32 groups. The released code pools without padding, to 55 x 55 of 224, and pads the skip by zeros
afterwards; its shortcuts have a group for each channel; and it adds 1e-6 where this adds 1e-5 (normalisation) and 1e-5
where this adds 1e-8 (standardised weights). With the same weights, logits of at most 0.23 differ by 0.009 at 224 x 224;
with these four set alike, by less than 1e-9.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from timm.layers import StdConv2d
from timm.models.resnetv2 import ResNetV2
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from napari_kdseg.networks.papers.blocks import PaperNetwork, conv_norm, double_conv, resize

_WIDTH, _LAYERS, _HEADS, _DROPOUT = 768, 12, 12, 0.1
_GRID = 14  # of the position embedding: 224 pixels at 1/16
_SKIPS = (512, 256, 64, 0)
_DECODER = (256, 128, 64, 16)


class Transformer(nn.Module):
    """Vision transformer on a feature map: ``[N, 1024, h, w] -> [N, 768, h, w]``, each place a token.

    The position embedding is interpolated where the map is not 14 x 14.
    """

    def __init__(self, in_channels: int):
        super().__init__()
        self.project = nn.Conv2d(in_channels, _WIDTH, 1)
        self.position = nn.Parameter(torch.zeros(1, _WIDTH, _GRID, _GRID))
        self.dropout = nn.Dropout(_DROPOUT)
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.layers = nn.Sequential(
            *(
                Block(_WIDTH, _HEADS, qkv_bias=True, proj_drop=_DROPOUT, norm_layer=norm)
                for _ in range(_LAYERS)
            )
        )
        self.norm = norm(_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        size = x.shape[-2:]
        tokens = (self.project(x) + resize(self.position, size)).flatten(2).transpose(1, 2)
        tokens = self.norm(self.layers(self.dropout(tokens)))
        return tokens.transpose(1, 2).unflatten(2, size)


class TransUNet(PaperNetwork):
    """Transformer between the encoder and the decoder of a U-Net.

    Parameters
    ----------
    in_channels
        Channels of the image.
    classes
        Number of classes.

    Notes
    -----
    ``backbone.stem.norm`` puts out 64 channels at 1/2, ``backbone.stages[i]`` 256, 512 and 1024 at 1/4, 1/8 and 1/16,
    ``transformer`` 768 at 1/16, ``decoder[i]`` 256, 128, 64 and 16 at 1/8, 1/4, 1/2 and 1.
    """

    multiple = 16
    output_stride = 16
    last_feature = "decoder.3"
    sees_everything = True
    named_layers: ClassVar[dict[str, str]] = {
        "@stem": "backbone.stem.norm",
        "@shallow": "backbone.stages.0",
        "@middle": "backbone.stages.1",
        "@bottom": "transformer",
        "@deep": "decoder.1",
    }

    def __init__(self, in_channels: int = 3, classes: int = 2):
        super().__init__()
        self.backbone = ResNetV2(
            layers=(3, 4, 9),
            num_classes=0,
            in_chans=in_channels,
            global_pool="",
            preact=False,
            stem_type="",
            conv_layer=partial(StdConv2d, eps=1e-8),
        )
        self.transformer = Transformer(1024)
        self.widen = conv_norm(_WIDTH, 512)
        self.decoder = nn.ModuleList(
            double_conv(below + skip, width, bias=False)
            for below, skip, width in zip((512, *_DECODER[:-1]), _SKIPS, _DECODER, strict=True)
        )
        self.classifier = nn.Conv2d(_DECODER[-1], classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Segment ``x``, float ``[N, in_channels, H, W]`` -> logits ``[N, classes, H, W]``."""
        self.check_size(x)
        stem = self.backbone.stem
        half = stem.norm(stem.conv(x))
        quarter = self.backbone.stages[0](stem.pool(half))
        eighth = self.backbone.stages[1](quarter)
        sixteenth = self.backbone.stages[2](eighth)
        x = self.widen(self.transformer(sixteenth))
        for block, skip in zip(self.decoder, (eighth, quarter, half, None), strict=True):
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = block(x if skip is None else torch.cat([x, skip], dim=1))
        return self.classifier(x)
