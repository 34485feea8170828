"""Networks as somebody might have written them, to be named by import path in tests."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Plain(nn.Module):
    """Halves once and comes back; the arguments are called as most people call them."""

    def __init__(self, in_channels: int, num_classes: int, width: int = 8) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.deep = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        logits = self.head(self.deep(self.down(image)))
        return functional.interpolate(logits, image.shape[-2:], mode="bilinear")


class Dict(Plain):
    """Puts out a dict, as the networks of torchvision do."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        logits = super().forward(image)
        return {"aux": logits[:, :1], "out": logits}


class Pair(Plain):
    """Puts out the logits and something else."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = super().forward(image)
        return logits, logits.mean((2, 3))


class Small(Plain):
    """Leaves the map at half the size."""

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.deep(self.down(image)))


class Vector(Plain):
    """Classifies whole images."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image).mean((2, 3))


class TwoClassesAlways(nn.Module):
    """Has no say in its counts."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Conv2d(3, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.only(image)


class NoNetwork:
    """A class, but no module."""


def function_of_a_network(n_channels: int, n_classes: int) -> nn.Module:
    return Plain(n_channels, n_classes)


def no_network() -> str:
    return "no network"


instance = TwoClassesAlways()
