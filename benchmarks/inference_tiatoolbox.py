"""TIAToolbox's ``SemanticSegmentor`` with the student of ``inference.py``, in an environment of its own.

TIAToolbox pins other versions of what napari-kdseg needs, so it lives apart::

    python -m venv tia
    tia/bin/pip install "tiatoolbox>=2.1,<3"
    python benchmarks/inference.py --tiatoolbox-python tia/bin/python

The engine is used as its documentation shows for a network of one's own: a ``ModelABC`` with ``infer_batch``, an
``IOSegmentorConfig`` with windows of 512 px that share 25 %, the tissue mask handed over, a zarr of predictions
written. It has no bfloat16. Its canvas, and the time it takes, grow with the area of the slide and not of the tissue,
so the slide is smaller than that of the others and a like share of it is tissue. Loading the network and importing
are not timed. One process and batches of 4 were fastest on two cores.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import shutil
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from tiatoolbox.models.engine.io_config import IOSegmentorConfig
from tiatoolbox.models.engine.semantic_segmentor import SemanticSegmentor
from tiatoolbox.models.models_abc import ModelABC

SOURCE = Path(__file__).parents[1] / "src"
PACKAGES = ("napari_kdseg", "napari_kdseg.networks", "napari_kdseg.networks.papers")
WINDOW, STRIDE, BATCH = 512, 384, 4


class Student(ModelABC):
    """The network as TIAToolbox wants it: NHWC pixels in, NHWC probabilities out."""

    def __init__(self, path: Path):
        super().__init__()
        with safe_open(path, "pt") as file:
            spec = next(json.loads(text) for text in file.metadata().values() if text.startswith("{"))
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        self.network = _enet(spec)
        self.network.load_state_dict(state)
        self.mpp = spec["mpp"]
        self.register_buffer("mean", torch.tensor(spec["mean"])[:, None, None])
        self.register_buffer("spread", torch.tensor(spec["std"])[:, None, None])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Normalise, and run the network: ``[N, 3, H, W]`` of 0..255 -> logits."""
        return self.network((image / 255 - self.mean) / self.spread)

    @staticmethod
    def infer_batch(model: torch.nn.Module, batch_data: torch.Tensor, *, device: str) -> np.ndarray:
        """Return probabilities ``[N, H, W, C]``, as the networks of TIAToolbox do."""
        model.eval()
        image = batch_data.to(device=device, dtype=torch.float32).permute(0, 3, 1, 2)
        with torch.inference_mode():
            return torch.softmax(model(image), dim=1).permute(0, 2, 3, 1).cpu().numpy()

    def postproc(self, image: Any) -> Any:
        """Return the classes."""
        return image.argmax(axis=-1)


def _enet(spec: dict[str, Any]) -> torch.nn.Module:
    """Build the network from its file; what the packages around it import is not installed here."""
    for name in PACKAGES:
        package = types.ModuleType(name)
        package.__path__ = [str(SOURCE.joinpath(*name.split(".")))]
        sys.modules[name] = package
    enet = importlib.import_module(f"{PACKAGES[-1]}.enet")
    return enet.ENet(spec["in_channels"], len(spec["classes"]))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slide", type=Path, required=True)
    parser.add_argument("--mask", type=Path, required=True, help="tissue, uint8 [h, w], as .npy")
    parser.add_argument("--network", type=Path, required=True, help="checkpoint of an ENet")
    parser.add_argument("--output", type=Path, required=True, help="folder, replaced")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    shutil.rmtree(arguments.output, ignore_errors=True)
    model = Student(arguments.network)
    engine = SemanticSegmentor(
        model, batch_size=BATCH, num_workers=arguments.workers, device=arguments.device, verbose=False
    )
    resolution = [{"units": "mpp", "resolution": model.mpp}]
    config = IOSegmentorConfig(
        input_resolutions=resolution,
        output_resolutions=resolution,
        save_resolution=resolution[0],
        patch_input_shape=(WINDOW, WINDOW),
        patch_output_shape=(WINDOW, WINDOW),
        stride_shape=(STRIDE, STRIDE),
    )
    start = time.perf_counter()
    engine.run(
        [arguments.slide],
        masks=[np.load(arguments.mask)],
        ioconfig=config,
        patch_mode=False,
        save_dir=arguments.output,
        output_type="zarr",
        device=arguments.device,
    )
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "torch": torch.__version__}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
