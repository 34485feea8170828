"""What frozen teachers and assistants put out for each tile, kept on disk, so that they see it once, not every epoch.

An image is known by its content, so that nothing needs to know which tile it is or how it was turned. Files last as
long as the stage; those of a run that was stopped are found again when it goes on. The curve is that of a teacher run
anew but for rounding: a network adds up otherwise where a tile lies among others.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from napari_kdseg.distillation import run_frozen
from napari_kdseg.files import write_whole
from napari_kdseg.jobs import Emit, Message
from napari_kdseg.training.config import DistillConfig
from napari_kdseg.training.tiles.tile import Tile

LEAST_FREE = 2 * 2**30
"""Bytes left free on the disk: below them nothing more is remembered."""


class TeacherMemory:
    """Runs frozen networks, or remembers what they put out for the same image.

    Left normally, its files are taken away; left because the job was stopped or failed, they stay for when it goes on.
    A shared memory stays in any case, and knows networks by their layers and weights.

    Parameters
    ----------
    folder
        Where the files lie, one an image and network.
    emit
        Is told if the disk is nearly full.
    shared
        Whether other runs use it too, now or later.
    """

    def __init__(self, folder: Path, emit: Emit, *, shared: bool = False):
        self.folder, self.emit, self.shared = folder, emit, shared
        self.full = False
        self._fingerprints: dict[int, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is None and not self.shared:
            shutil.rmtree(self.folder, ignore_errors=True)

    def run_frozen(
        self, teacher: str, name: str, network: nn.Module, image: Tensor, layers: Sequence[str]
    ) -> dict[str, Tensor]:
        """Return what ``network`` puts out for the batch: from disk what is there, by running it for the rest.

        Parameters
        ----------
        teacher, name
            Whose output it is: the number of the teacher, and which member of its team.
        network, image, layers
            As in :func:`napari_kdseg.distillation.run_frozen`.
        """
        pixels = image.detach().cpu().contiguous().view(torch.uint8).numpy()
        kind = hashlib.blake2b("\n".join(layers).encode(), digest_size=4).hexdigest()
        who = self._fingerprint(network) if self.shared else f"{teacher}-{name}"
        folder = self.folder / f"{who}-{kind}"
        files = [
            folder / f"{hashlib.blake2b(tile, digest_size=16).hexdigest()}.safetensors" for tile in pixels
        ]
        new = [number for number, file in enumerate(files) if not file.exists()]
        values = {n: load_file(files[n], device=str(image.device)) for n in range(len(files)) if n not in new}
        if new:
            fresh = run_frozen(name, network, image[new], layers)
            values |= {number: {tap: v[i] for tap, v in fresh.items()} for i, number in enumerate(new)}
            if self._has_room():
                for number in new:
                    kept = {tap: v.cpu().contiguous() for tap, v in values[number].items()}
                    write_whole(files[number], to_bytes(kept))
        return {tap: torch.stack([values[n][tap] for n in range(len(files))]) for tap in values[0]}

    def _fingerprint(self, network: nn.Module) -> str:
        """Hash the layers and the weights of a frozen network, once."""
        if id(network) not in self._fingerprints:
            digest = hashlib.blake2b(repr(network).encode(), digest_size=8)
            for name, tensor in network.state_dict().items():
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
            self._fingerprints[id(network)] = digest.hexdigest()
        return self._fingerprints[id(network)]

    def _has_room(self) -> bool:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.full and shutil.disk_usage(self.folder).free < LEAST_FREE:
            self.full = True
            self.emit(
                Message(
                    "The disk is nearly full, so no more of the teacher's outputs are remembered; training goes on.",
                    "warning",
                )
            )
        return not self.full


def changing_tiles(config: DistillConfig, tiles: Sequence[Tile]) -> str | None:
    """Say why a tile does not come again as it was, if so: only flips and quarter turns have an end."""
    if not config.augment:
        return None
    how = config.augmentation
    endless = {
        "stain": how.stain_probability,
        "light": how.light_probability,
        "blur": how.blur_probability,
        "scale": how.scale_probability,
    }
    changed = [name for name, probability in endless.items() if probability > 0]
    if changed:
        return (
            f"the augmentation changes {' and '.join(changed)} anew each time. Turn augmentation off, or set how often "
            "they are changed to 0"
        )
    if any(tile.size[0] != tile.size[1] for tile in tiles):
        return "tiles that are not square are cropped anew each time"
    return None
