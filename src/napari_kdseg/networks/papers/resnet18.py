"""ResNet-18 as EMKD segments with it: stride 32, a 1x1 classifier, bilinear enlargement.

11.1775 M parameters (11.2 M printed) and 5.33 G multiply-adds at 3 x 384 x 384 (10.66 GFLOPs printed).
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torchvision.models import resnet18

from napari_kdseg.networks.papers.blocks import resize
from napari_kdseg.networks.papers.resnet_encoder import ResNetEncoder


class ResNet18(ResNetEncoder):
    """ResNet-18 with a classifier for each pixel at 1/32.

    Parameters
    ----------
    in_channels
        Channels of the image.
    classes
        Number of classes.
    align_corners
        Enlarge the logits as EMKD's code does. Then where a cell of them comes to lie depends on the size of the image,
        by up to half a cell (15.5 pixels), and tiles of a slide do not give what the whole gives: not the default.

    Notes
    -----
    ``stem`` puts out 64 channels at 1/2, ``layer1`` to ``layer4`` 64, 128, 256 and 512 at 1/4, 1/8, 1/16 and 1/32. It
    has no decoder: ``@deep`` is the end of ``layer1``, ``@shallow`` the block before.
    """

    last_feature = "layer4"
    named_layers: ClassVar[dict[str, str]] = {
        "@stem": "stem",
        "@shallow": "layer1.0",
        "@middle": "layer2",
        "@bottom": "layer4",
        "@deep": "layer1.1",
    }

    def __init__(self, in_channels: int = 3, classes: int = 2, *, align_corners: bool = False):
        super().__init__(resnet18(weights=None), in_channels)
        self.classifier = nn.Conv2d(512, classes, 1)
        self.align_corners = align_corners

    def forward(self, x: Tensor) -> Tensor:
        """Segment ``x``, float ``[N, in_channels, H, W]`` -> logits ``[N, classes, H, W]``."""
        *_, deep = self.encode(x)
        return resize(self.classifier(deep), x.shape[-2:], align_corners=self.align_corners)

    def extra_repr(self) -> str:
        """Tell what the weights do not."""
        return f"align_corners={self.align_corners}"
