from __future__ import annotations

from pathlib import Path

import pytest
import tifffile
import torch

from napari_kdseg.networks import NetworkSpec, create, save
from napari_kdseg.slides import open_slide

SLIDE = "synthetic:600x400?seed=1&mpp=0.5"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A small real network with random weights that sees every class somewhere, trained at 0.5 µm/px."""
    return make_checkpoint(tmp_path_factory.mktemp("network") / "student.safetensors", seed=0, mpp=0.5)


def make_checkpoint(
    path: Path, *, seed: int, mpp: float | None, classes: int = 3, architecture: str = "enet"
) -> Path:
    torch.manual_seed(seed)
    names = ("background", *(f"class {index}" for index in range(1, classes)))
    spec = NetworkSpec(architecture=architecture, classes=names, mpp=mpp)
    module = create(architecture, 3, classes)
    # An untrained classifier may prefer one class everywhere; centred logits make the mask worth looking at.
    module.train()
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(2, 3, 64, 64))
    return Path(save(path, module.eval(), spec))


@pytest.fixture
def make_network():
    return make_checkpoint


@pytest.fixture(scope="session")
def slide_without_mpp(tmp_path_factory) -> Path:
    """A tiled TIFF that does not say how large its pixels are."""
    path = tmp_path_factory.mktemp("slide") / "without.tif"
    with open_slide(SLIDE) as slide:
        tifffile.imwrite(path, slide.read(0, 0, 0, 400, 600), photometric="rgb", tile=(256, 256))
    return path
