"""What RA-UNet and ResNet-18 share: an encoder that is torchvision's ResNet, for any number of channels."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import ResNet

from napari_kdseg.networks.papers.blocks import PaperNetwork


class ResNetEncoder(PaperNetwork):
    """Base of networks that begin with a ResNet.

    Parameters
    ----------
    backbone
        Whose layers to take; its classifier is left out.
    in_channels
        Channels of the image.

    Notes
    -----
    ``stem`` puts out 64 channels at 1/2, ``layer1`` to ``layer4`` 64, 128, 256 and 512 at 1/4, 1/8, 1/16 and 1/32.
    """

    multiple = 32
    output_stride = 32

    def __init__(self, backbone: ResNet, in_channels: int):
        super().__init__()
        first = backbone.conv1
        if in_channels != 3:
            first = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.stem = nn.Sequential(first, backbone.bn1, backbone.relu)
        self.pool = backbone.maxpool
        self.layer1, self.layer2 = backbone.layer1, backbone.layer2
        self.layer3, self.layer4 = backbone.layer3, backbone.layer4

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Give what ``layer1`` to ``layer4`` put out for ``[N, in_channels, H, W]``."""
        self.check_size(x)
        quarter = self.layer1(self.pool(self.stem(x)))
        eighth = self.layer2(quarter)
        sixteenth = self.layer3(eighth)
        return quarter, eighth, sixteenth, self.layer4(sixteenth)
