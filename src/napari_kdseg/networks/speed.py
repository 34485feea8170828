"""How many images a second a network segments on this computer: measured once, and kept beside the other notes."""

from __future__ import annotations

import json
import platform
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from napari_kdseg.errors import explain
from napari_kdseg.files import results_folder, write_whole
from napari_kdseg.networks.choices import COST_SIDE

#: Seconds for which passes are repeated.
PATIENCE = 1.0


def here() -> str:
    """Name what a measurement belongs to: the computer, its device, the threads and the version of torch."""
    device = _device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{platform.node()}: {name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def measure_speed(
    module: nn.Module, side: int = COST_SIDE, in_channels: int = 3, seconds: float = PATIENCE
) -> float:
    """Measure a network on single images of noise, in float32, on the GPU where there is one.

    Parameters
    ----------
    module
        Left in evaluation mode, on the device that was measured.
    side, in_channels
        Of the image, in pixels.
    seconds
        For which passes are repeated, after one that prepares; where that one takes twice as long, it is the only one.

    Returns
    -------
    float
        Images a second, of the fastest pass.
    """
    device = _device()
    module = module.eval().to(device)
    image = torch.rand(1, in_channels, side, side, device=device)
    fastest = _one_pass(module, image)
    if fastest < 2 * seconds:
        begun, fastest = time.perf_counter(), float("inf")
        while fastest == float("inf") or time.perf_counter() - begun < seconds:
            fastest = min(fastest, _one_pass(module, image))
    return 1 / fastest


def _one_pass(module: nn.Module, image: Tensor) -> float:
    start = time.perf_counter()
    with torch.inference_mode():
        module(image)
    if image.device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - start


def known_speeds() -> dict[str, float]:
    """Images a second of the networks that were measured here, by name."""
    return _read().get(here(), {})


def keep_speed(name: str, images_per_second: float) -> None:
    """Keep a measurement; where that cannot be done, a Python warning says so."""
    known = _read()
    known.setdefault(here(), {})[name] = images_per_second
    try:
        write_whole(_path(), json.dumps(known, indent=2).encode())
    except OSError as error:
        warnings.warn(f"The speed of {name} could not be kept. {explain(error)}", stacklevel=2)


def _device() -> torch.device:
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def _path() -> Path:
    return results_folder() / "speeds.json"


def _read() -> dict[str, dict[str, float]]:
    """Read what was kept; nothing where there is no such file or another program damaged it."""
    try:
        value = json.loads(_path().read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
