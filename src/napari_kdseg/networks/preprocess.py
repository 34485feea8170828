"""Pixels -> network input: ``(pixel / 255 - mean) / std``, as the network's spec says."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.networks.spec import NetworkSpec


def to_input(tiles: np.ndarray | Tensor, spec: NetworkSpec, device: str | torch.device = "cpu") -> Tensor:
    """Turn tiles into a batch that the network takes.

    Parameters
    ----------
    tiles
        uint8 ``[N, H, W, C]``, a numpy array or a tensor on any device.
    spec
        The network's description.
    device
        Where the network is. Bytes travel there, a quarter of what floats would be; a tensor in pinned memory
        travels beside the computation.

    Returns
    -------
    Tensor
        Normalised float32 ``[N, C, H, W]`` in channels-last memory.

    Raises
    ------
    ConfigurationError
        If the tiles are not 8-bit, or have another number of channels than the network takes.
    """
    if tiles.dtype not in (np.uint8, torch.uint8):
        raise ConfigurationError(
            f"Networks take 8-bit images, these tiles are {tiles.dtype}. "
            "Choose how bright is white, and convert them to 8 bit first."
        )
    if tiles.ndim != 4:
        raise ConfigurationError(
            f"Tiles come as [number, height, width, channels], but these are {list(tiles.shape)}."
        )
    if tiles.shape[-1] != spec.in_channels:
        raise ConfigurationError(
            f"The network {spec.architecture} takes {spec.in_channels} channels, but the image has {tiles.shape[-1]}. "
            "Choose a network trained on such images, or the channels it was trained on."
        )
    if isinstance(tiles, np.ndarray):
        tiles = torch.from_numpy(np.require(tiles, requirements=["C", "W"]))
    there = tiles.to(device, non_blocking=True).contiguous()
    count, height, width, channels = there.shape
    mean, std = torch.tensor([spec.mean, spec.std], dtype=torch.float64).repeat(1, width)
    factor, offset = (1 / (255 * std)).float().to(device), (-mean / std).float().to(device)
    # Whole rows at once: broadcasting over the last, short axis is several times slower.
    rows = there.reshape(count * height, width * channels).to(torch.float32)
    torch.addcmul(offset, rows, factor, out=rows)
    # [N, H, W, C] seen as [N, C, H, W] is channels-last memory.
    return rows.reshape(there.shape).permute(0, 3, 1, 2)
