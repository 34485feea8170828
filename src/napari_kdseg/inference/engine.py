"""A network on a device: uint8 tiles in, classes and their probabilities out."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import nn

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.inference.config import Precision
from napari_kdseg.masks.settings import Device
from napari_kdseg.networks import NetworkSpec, to_input


def choose_device(device: Device) -> torch.device:
    """Return the device that ``device`` means here.

    Raises
    ------
    ConfigurationError
        If CUDA is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ConfigurationError("There is no usable CUDA device here. Choose the device 'cpu' or 'auto'.")
    return torch.device("cuda" if available and device != "cpu" else "cpu")


def choose_precision(precision: Precision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """Return the arithmetic that ``precision`` means on ``device``: bfloat16 on GPUs that have it, else float32."""
    if precision != "auto":
        return precision
    return (
        "bfloat16"
        if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        else "float32"
    )


class Engine:
    """Runs one network in inference mode.

    Parameters
    ----------
    module
        ``[N, C_in, H, W]`` -> logits ``[N, C, H, W]``; put into eval mode, on ``device``, channels last.
    spec
        Says how pixels are normalised.
    device, precision
        As chosen by :func:`choose_device` and :func:`choose_precision`.
    """

    def __init__(
        self,
        module: nn.Module,
        spec: NetworkSpec,
        device: torch.device,
        precision: Literal["float32", "bfloat16"],
    ):
        self._module = module.eval().to(device=device, memory_format=torch.channels_last)
        self._spec = spec
        self._device = device
        self._reduced = precision == "bfloat16"

    def predict(self, tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict a batch.

        Parameters
        ----------
        tiles
            uint8 ``[N, H, W, C_in]``.

        Returns
        -------
        classes
            uint8 ``[N, H, W]``.
        probability
            float32 ``[N, H, W]``, of the predicted class.
        """
        with torch.inference_mode():
            image = to_input(tiles, self._spec, self._device).contiguous(memory_format=torch.channels_last)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._reduced):
                logits = self._module(image)
            probability, classes = torch.softmax(logits.float(), dim=1).max(dim=1)
        return classes.to(torch.uint8).cpu().numpy(), probability.cpu().numpy()
