"""Small networks and small pictures for the distillation tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

WHOLE_METHODS = ("test_every_method.py", "test_features_only.py", "test_methods.py", "test_view.py")
"""They take minutes. Of the first, cases that stand for all have the marker."""


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder and below as ``numeric``."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.path.name not in WHOLE_METHODS:
            item.add_marker(pytest.mark.numeric)


class TinyNet(nn.Module):
    """Two convolutions with batch normalisation, and a classifier: has the parts any segmentation network has."""

    def __init__(self, classes: int = 2, width: int = 8, channels: int = 3) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.segmentation_head = nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.segmentation_head(self.decoder(self.encoder(image)))


class Says(nn.Module):
    """Answers with fixed logits, and with a fixed feature before them, whatever it is shown."""

    def __init__(self, logits: Tensor, feature: Tensor | None = None) -> None:
        super().__init__()
        self.decoder = _Constant(logits if feature is None else feature)
        self.segmentation_head = _Constant(logits)

    def forward(self, image: Tensor) -> Tensor:
        return self.segmentation_head(self.decoder(image))


class _Constant(nn.Module):
    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, _: Tensor) -> Tensor:
        return self.value


@pytest.fixture
def tiny_net() -> Callable[..., TinyNet]:
    def make(seed: int = 0, **options: int) -> TinyNet:
        torch.manual_seed(seed)
        return TinyNet(**options)

    return make


@pytest.fixture
def says() -> type[Says]:
    return Says


@pytest.fixture
def lesions() -> Callable[..., tuple[Tensor, Tensor]]:
    """Noisy images of discs: foreground class c is brighter by c in every channel."""

    def make(
        seed: int, count: int = 4, size: int = 24, classes: int = 2, noise: float = 0.6
    ) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        target = torch.zeros(count, size, size, dtype=torch.long)
        for n in range(count):
            for c in range(1, classes):
                centre = torch.rand(2, generator=generator) * size
                target[n][(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < (size / 3.5) ** 2] = c
        image = target[:, None].float() - 0.5
        image = image + noise * torch.randn(count, 3, size, size, generator=generator)
        return image, target

    return make


@pytest.fixture
def case() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Random logits of student and teacher, and a target with ignored pixels: the first image's first, not its last."""

    def make(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        student, teacher = (2 * torch.randn(shape, generator=generator) for _ in range(2))
        target = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
        target[torch.rand(target.shape, generator=generator) < 0.3] = 255
        target[0, 0, 0], target[0, -1, -1] = 255, 0
        return student, teacher, target

    return make


@pytest.fixture
def random_case() -> Callable[..., tuple[Tensor, ...]]:
    """Random logits of three networks, a blocky target with ignored pixels, and a feature, all from one seed."""

    def make(seed: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)

        def integer(low: int, high: int) -> int:
            return int(torch.randint(low, high, (), generator=generator))

        count, classes, height, width = integer(1, 4), integer(2, 6), integer(1, 14), integer(1, 14)
        target = torch.randint(0, classes, (count, height, width), generator=generator)
        if seed % 2:  # half of the cases: one class prevails, others may be absent
            target = torch.where(
                torch.rand(target.shape, generator=generator) < 0.8, integer(0, classes), target
            )
        target[torch.rand(target.shape, generator=generator) < 0.15] = 255
        one_hot = torch.nn.functional.one_hot(target.clamp(max=classes - 1), classes).movedim(-1, 1)

        def logits(skill: float) -> Tensor:
            noise = torch.randn(count, classes, height, width, generator=generator)
            return (noise + skill * one_hot).round(decimals=1)  # rounding makes ties

        feature = torch.randn(
            count, integer(1, 5), max(height // 2, 1), max(width // 2, 1), generator=generator
        )
        image = torch.randn(count, 3, height, width, generator=generator)
        return image, target, logits(1.0), logits(1.5), logits(1.5), feature

    return make


@pytest.fixture
def contents() -> Callable[[Any, int], Tensor]:
    """What queues hold of a class, oldest first, ``[size, channels]``: read from the state they are saved as."""

    def held(queues: Any, c: int) -> Tensor:
        state = queues.state_dict()
        places = state.get("_extra_state", state)  # of a module; of plain queues
        values, size, following = state["values"][c], places["sizes"][c], places["next"][c]
        return values[[(following - size + n) % len(values) for n in range(size)]]

    return held
