from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_kdseg.masks import MaskPyramid, MaskSpec, MaskStore, open_masks, plan_tiles
from napari_kdseg.networks import NetworkSpec, create, save
from napari_kdseg.slides import open_slide

CLASSES = ("background", "benign", "tumour")
COLOURS = ((0, 0, 0), (0, 158, 115), (230, 159, 0))


@pytest.fixture
def make_mask(tmp_path):
    """Write an array as a mask of a store, as a prediction would."""

    def make(
        name: str, values: np.ndarray, downsample: float, slide="synthetic:256x256?seed=1&mpp=0.5"
    ) -> MaskPyramid:
        with open_slide(slide) as opened:
            store = MaskStore(tmp_path / f"{opened.identity()[-6:]}.ome.zarr", opened)
            recipe = {"slide": opened.identity(), "checkpoint": {"name": name}}
            settings = {
                "shape": values.shape,
                "downsample": (downsample, downsample),
                "tile": 32,
                "made_by": recipe,
            }
            with store.begin([MaskSpec("labels", name, "class", CLASSES, COLOURS)], **settings) as writer:
                for tile in plan_tiles(values.shape, None, 32, 0):
                    block = values[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
                    writer.write_tile(tile, [block])
        return open_masks(store.path)[name]

    return make


@pytest.fixture(scope="session")
def team(tmp_path_factory) -> dict[str, Path]:
    """A teacher and two assistants with random weights."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    paths = {}
    for seed, name in enumerate(["teacher", "false_pixel_assistant", "boundary_assistant"]):
        torch.manual_seed(seed)
        module = create("enet", 3, 2)
        module.train()
        with torch.no_grad():
            for _ in range(3):
                module(torch.randn(2, 3, 64, 64))
        spec = NetworkSpec(architecture="enet", classes=("background", "gland"), mpp=16.0)
        paths[name] = Path(save(folder / f"{name}.safetensors", module.eval(), spec))
    return paths
