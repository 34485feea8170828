"""RA-UNet (Ni et al. 2019, arXiv:1909.10360) as EMKD teaches with it: ResNet-34, LinkNet's decoder, channel attention.

22.1434 M parameters for three channels and two classes (22.1 M printed). Returns logits, where the original returns
their log-softmax.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torchvision.models import resnet34

from napari_kdseg.networks.papers.blocks import conv_norm
from napari_kdseg.networks.papers.resnet_encoder import ResNetEncoder
from napari_kdseg.networks.single_image import PooledNorm2d


class DecoderBlock(nn.Sequential):
    """1x1 to a quarter of the channels, a transposed convolution that doubles the size, 1x1 to the channels wanted."""

    def __init__(self, in_channels: int, out_channels: int):
        inner = in_channels // 4
        super().__init__(
            *conv_norm(in_channels, inner, 1, bias=True),
            nn.ConvTranspose2d(inner, inner, 4, stride=2, padding=1),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            *conv_norm(inner, out_channels, 1, bias=True),
        )


class AugmentedAttention(nn.Module):
    """Adds the encoder's feature to the decoder's, its channels weighted by what both hold over the whole image.

    Notes
    -----
    Its batch normalisations read maps of one pixel: a batch of one image is normalised by the running statistics
    (:class:`~napari_kdseg.networks.single_image.PooledNorm2d`).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.of_decoder = conv_norm(channels, channels, 1, bias=True, norm=PooledNorm2d)
        self.of_encoder = conv_norm(channels, channels, 1, bias=True, norm=PooledNorm2d)
        self.weight = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.Softmax(dim=1))
        self.project = conv_norm(channels, channels, 1, bias=True)

    def forward(self, decoder: Tensor, encoder: Tensor) -> Tensor:
        """See the class; twice ``[N, c, h, w] -> [N, c, h, w]``."""
        both = self.of_decoder(self.pool(decoder)) + self.of_encoder(self.pool(encoder))
        return decoder + self.weight(both) * self.project(encoder)


class RAUNet(ResNetEncoder):
    """U-Net on ResNet-34 with attention on its skips.

    Parameters
    ----------
    in_channels
        Channels of the image.
    classes
        Number of classes.

    Notes
    -----
    ``stem`` puts out 64 channels at 1/2, ``layer1`` to ``layer4`` 64, 128, 256 and 512 at 1/4 to 1/32,
    ``attention3`` to ``attention1`` 256, 128 and 64 at 1/16, 1/8 and 1/4, ``decoder1`` 64 at 1/2, ``head`` 32 that
    ``classifier`` reads.
    """

    last_feature = "head"
    sees_everything = True
    named_layers: ClassVar[dict[str, str]] = {
        "@stem": "stem",
        "@shallow": "layer1",
        "@middle": "layer2",
        "@bottom": "layer4",
        "@deep": "attention1",
    }

    def __init__(self, in_channels: int = 3, classes: int = 2):
        super().__init__(resnet34(weights=None), in_channels)
        self.decoder4 = DecoderBlock(512, 256)
        self.attention3 = AugmentedAttention(256)
        self.decoder3 = DecoderBlock(256, 128)
        self.attention2 = AugmentedAttention(128)
        self.decoder2 = DecoderBlock(128, 64)
        self.attention1 = AugmentedAttention(64)
        self.decoder1 = DecoderBlock(64, 64)
        self.head = nn.Sequential(
            nn.ConvTranspose2d(64, 32, 3, stride=2), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU()
        )
        self.classifier = nn.Conv2d(32, classes, 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Segment ``x``, float ``[N, in_channels, H, W]`` -> logits ``[N, classes, H, W]``."""
        quarter, eighth, sixteenth, deep = self.encode(x)
        x = self.attention3(self.decoder4(deep), sixteenth)
        x = self.attention2(self.decoder3(x), eighth)
        x = self.attention1(self.decoder2(x), quarter)
        return self.classifier(self.head(self.decoder1(x)))
