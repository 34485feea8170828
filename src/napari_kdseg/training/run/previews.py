"""One validation tile an epoch as a picture: image, annotation and prediction side by side."""

from __future__ import annotations

import io

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image

from napari_kdseg.colours import CLASSES
from napari_kdseg.distillation import Stage
from napari_kdseg.networks import NetworkSpec, to_input
from napari_kdseg.training.run.run_folder import RunFolder
from napari_kdseg.training.tiles.dataset import TileDataset

OPACITY = 0.45


@torch.no_grad()
def save_preview(
    run: RunFolder, stage: Stage, epoch: int, dataset: TileDataset, spec: NetworkSpec, fabric: Fabric
) -> None:
    """Write ``previews/<stage>-<epoch>.png``: the first validation tile that shows more than one class."""
    index = next((i for i in range(len(dataset)) if len(np.unique(dataset[i][1])) > 1), 0)
    image, mask = dataset[index]
    stage.network.eval()
    with fabric.autocast():
        logits = stage.network(to_input(image[None], spec, fabric.device))
    prediction = logits[0].argmax(dim=0).to("cpu", torch.uint8).numpy()
    rgb = image if image.shape[2] == 3 else np.repeat(image[..., :1], 3, axis=2)
    picture = np.concatenate([rgb, overlay(rgb, mask), overlay(rgb, prediction)], axis=1)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    run.write(f"previews/{stage.name}-{epoch + 1:03d}.png", buffer.getbuffer())


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Lay the foreground classes of a mask over an RGB image, both ``uint8``."""
    colour = np.array(CLASSES, dtype=np.float32)[(mask.astype(int) - 1) % len(CLASSES)]
    shown = ((mask != 0) & (mask != 255))[..., None]
    return np.where(shown, image * (1 - OPACITY) + colour * OPACITY, image).astype(np.uint8)
