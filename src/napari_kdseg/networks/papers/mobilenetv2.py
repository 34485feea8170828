"""MobileNetV2 as EMKD segments with it: stride 8, a 1x1 classifier, bilinear enlargement.

2.2290 M parameters (2.2 M printed), the classifier of whole images included, which is never read; 9.57 G multiply-adds
at 3 x 384 x 384 (19.14 GFLOPs printed).
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torchvision.models import mobilenet_v2

from napari_kdseg.networks.papers.blocks import PaperNetwork, resize

# Expansion, channels, repetitions, stride of the first.
_BLOCKS = [
    [1, 16, 1, 1],
    [6, 24, 2, 1],
    [6, 32, 3, 2],
    [6, 64, 4, 1],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
]


class MobileNetV2(PaperNetwork):
    """MobileNetV2 with a classifier for each pixel at 1/8.

    Parameters
    ----------
    in_channels
        Channels of the image.
    classes
        Number of classes.
    align_corners
        Enlarge the logits as EMKD's code does. Then where a cell of them comes to lie depends on the size of the image,
        by up to half a cell (3.5 pixels), and tiles of a slide do not give what the whole gives: not the default.

    Notes
    -----
    ``features[i]``: 32 channels at 1/2 for ``features[0]``, 24 at 1/2 up to ``features[3]``, 32 at 1/4 up to
    ``features[6]``, 64 and 96 at 1/4 up to ``features[13]``, 160 at 1/8 from ``features[14]``, 1280 from
    ``features[18]``. EMKD taps the first and the last; so ``@middle``, ``@bottom`` and ``@feature`` are one layer.
    """

    multiple = 8
    output_stride = 8
    last_feature = "features.18"
    named_layers: ClassVar[dict[str, str]] = {
        "@stem": "features.0",
        "@shallow": "features.6",
        "@middle": "features.18",
        "@bottom": "features.18",
        "@deep": "features.13",
    }
    first_named_layers: ClassVar[dict[str, str]] = {"@stem": "features.3", "@middle": "features.16"}

    def __init__(self, in_channels: int = 3, classes: int = 2, *, align_corners: bool = False):
        super().__init__()
        backbone = mobilenet_v2(weights=None, num_classes=classes, inverted_residual_setting=_BLOCKS)
        self.features = backbone.features
        if in_channels != 3:
            self.features[0][0] = nn.Conv2d(in_channels, 32, 3, stride=2, padding=1, bias=False)
        self.image_classifier = backbone.classifier
        self.classifier = nn.Conv2d(1280, classes, 1)
        self.align_corners = align_corners

    def forward(self, x: Tensor) -> Tensor:
        """Segment ``x``, float ``[N, in_channels, H, W]`` -> logits ``[N, classes, H, W]``."""
        self.check_size(x)
        return resize(self.classifier(self.features(x)), x.shape[-2:], align_corners=self.align_corners)

    def extra_repr(self) -> str:
        """Tell what the weights do not."""
        return f"align_corners={self.align_corners}"
