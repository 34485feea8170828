"""ENet, a million bytes and a half, made small: its weights repeat themselves, and the files are packed by xz.

That changes nothing of what the files are: names, shapes and form, and every weight counts.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_kdseg.networks import create_from, inspect, save

SIDE = 96
SETTLING = 20
PERIOD = 4099
"""Signs of the weights come again after so many, a prime: no two layers begin alike."""


def image() -> np.ndarray:
    """Return the image that ENet is asked about, uint8 ``[96, 96, 3]``: a formula, so that it is the same anywhere."""
    y, x, c = np.ogrid[:SIDE, :SIDE, :3]
    return ((37 * y + 101 * x + 59 * c + y * x + (y // 7) * (x // 5) * 11) % 256).astype(np.uint8)


def coarse(network: nn.Module) -> nn.Module:
    """Give every layer weights of two values, and norms and slopes that all differ, with statistics that suit them."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], PERIOD)
    used = 0
    random = torch.Generator().manual_seed(0)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return torch.rand(like.shape, generator=random) * (high - low) + low

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                weight = module.weight
                pattern = np.resize(np.roll(signs, -used), weight.shape)
                weight.copy_(torch.from_numpy(pattern) * weight.abs().mean().bfloat16())
                used += weight.numel()
            elif isinstance(module, nn.PReLU):
                module.weight.copy_(uniform(module.weight, 0.05, 0.45).bfloat16())
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(uniform(module.weight, 0.6, 1.4).bfloat16())
                module.bias.copy_(uniform(module.bias, -0.3, 0.3).bfloat16())
        network.train()
        for _ in range(SETTLING):
            network(torch.randn(4, 3, SIDE, SIDE, generator=random))
        for name, buffer in network.named_buffers():
            if "running" in name:
                buffer.copy_(buffer.bfloat16())
    return network.eval()


def logits(network: nn.Module, mean: Any, std: Any) -> np.ndarray:
    """Return what the network says of :func:`image` in float64, ``[classes, 96, 96]``."""
    pixels = (image() / 255 - np.asarray(mean)) / np.asarray(std)
    with torch.no_grad():
        batch = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]
        return network.double()(batch)[0].numpy()


def pack_enet(root: Path) -> None:
    """Make the run of ENet coarse, and pack it with a checkpoint of ENet; write down what that checkpoint says."""
    run = root / "runs" / "enet"
    checkpoints = run / "checkpoints"
    spec = inspect(checkpoints / "student.safetensors")
    state = torch.load(checkpoints / "state.pt", weights_only=True)
    network = create_from(spec)
    network.load_state_dict(state["network"])
    state["network"] = coarse(network).state_dict()
    torch.save(state, checkpoints / "state.pt")
    for name in ("student", "student-last"):
        path = checkpoints / f"{name}.safetensors"
        save(path, network, inspect(path))
    shutil.copy(checkpoints / "student.safetensors", root / "enet.safetensors")
    said = logits(network, spec.mean, spec.std)
    np.savez_compressed(
        root / "expected" / "enet.npz", logits=said[:, ::8, ::8], classes=said.argmax(0).astype(np.uint8)
    )
    with tarfile.open(root / "enet.tar.xz", "w:xz", preset=9) as archive:
        for path in [root / "enet.safetensors", *sorted(run.rglob("*"))]:
            if path.is_file():
                archive.add(path, path.relative_to(root), filter=_nobody)
    shutil.rmtree(run)
    (root / "enet.safetensors").unlink()


def _nobody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry
