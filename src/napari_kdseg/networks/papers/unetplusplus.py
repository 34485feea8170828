"""U-Net++ (Zhou et al. 2018, arXiv:1807.10165) at the width of EMKD's comparison: 64 to 1024, no deep supervision.

36.629 M parameters and 309.95 G multiply-adds at 1 x 384 x 384, which are the 620.04 GFLOPs that EMKD printed; its
printed 20.6 M parameters belong to no network of that cost.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_kdseg.networks.papers.blocks import PaperNetwork, double_conv

_WIDTHS = (64, 128, 256, 512, 1024)


class UNetPlusPlus(PaperNetwork):
    """Nested U-Net of 36.6 M parameters.

    Parameters
    ----------
    in_channels
        Channels of the image.
    classes
        Number of classes.

    Notes
    -----
    ``node<level>_<step>`` puts out 64, 128, 256, 512 or 1024 channels at level 0 to 4, each level half the size of the
    one above; step 0 is the encoder, the others read all earlier nodes of their level and the one below. ``classifier``
    reads ``node0_4``.
    """

    multiple = 16
    output_stride = 16
    last_feature = "node0_4"
    named_layers: ClassVar[dict[str, str]] = {
        "@stem": "node1_0",
        "@shallow": "node2_0",
        "@middle": "node3_0",
        "@bottom": "node4_0",
        "@deep": "node2_2",
    }

    def __init__(self, in_channels: int = 3, classes: int = 2):
        super().__init__()
        for level, (above, width) in enumerate(zip((in_channels, *_WIDTHS[:-1]), _WIDTHS, strict=True)):
            self.add_module(f"node{level}_0", double_conv(above, width))
        for step in range(1, len(_WIDTHS)):
            for level in range(len(_WIDTHS) - step):
                read = step * _WIDTHS[level] + _WIDTHS[level + 1]
                self.add_module(f"node{level}_{step}", double_conv(read, _WIDTHS[level]))
        self.classifier = nn.Conv2d(_WIDTHS[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Segment ``x``, float ``[N, in_channels, H, W]`` -> logits ``[N, classes, H, W]``."""
        self.check_size(x)
        done: list[list[Tensor]] = []  # by level, then by step
        for level in range(len(_WIDTHS)):
            x = self._node(level, 0, functional.max_pool2d(x, 2) if level else x)
            done.append([x])
        for step in range(1, len(_WIDTHS)):
            for level in range(len(_WIDTHS) - step):
                up = functional.interpolate(
                    done[level + 1][step - 1], scale_factor=2, mode="bilinear", align_corners=True
                )
                done[level].append(self._node(level, step, torch.cat([*done[level], up], dim=1)))
        return self.classifier(done[0][-1])

    def _node(self, level: int, step: int, x: Tensor) -> Tensor:
        return self.get_submodule(f"node{level}_{step}")(x)
