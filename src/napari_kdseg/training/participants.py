"""Who takes part in a run, teachers and student: created or loaded, and compared with the data before training.

A *role* is what a network, or its mask, is to the others where they are shown and compared: teacher, student,
corrected, reference. Here each network goes by the name that its files have in the run folder.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import torch

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.jobs import Emit, Message
from napari_kdseg.networks import (
    Checkpoint,
    NetworkSpec,
    create_from,
    input_multiple,
    load,
    load_encoder,
    smallest_input,
)
from napari_kdseg.networks.anatomy.named_layers import keep_named_layers
from napari_kdseg.networks.foreign.foundation import encoder_of, patch_size
from napari_kdseg.networks.spec import REVISION
from napari_kdseg.training.config import DistillConfig
from napari_kdseg.training.settings import NetworkChoice
from napari_kdseg.training.tiles.data import TileCollection
from napari_kdseg.training.tiles.tile import stable_hash

_FEWEST_PATCHES = 4
_LARGEST_SIDE = 1024

SCALE_TOLERANCE = 1.2
"""Ratio of two resolutions that makes no difference worth a warning."""


class Participants:
    """Makes the networks of a run.

    Parameters
    ----------
    collection
        The data they have to fit.
    config
        The run.
    emit
        Receives warnings.
    revision
        Of the papers' networks when the run began: what is made here is of it, and the layers that methods read are
        those of it. A checkpoint says itself of which revision its network is.
    """

    def __init__(
        self, collection: TileCollection, config: DistillConfig, emit: Emit, revision: int = REVISION
    ):
        self.collection, self.config, self.emit, self.revision = collection, config, emit, revision

    def side(self, choice: NetworkChoice) -> int:
        """Side in pixels of the square that a network sees."""
        if choice.is_encoder and choice.input_size is None:
            return self._side_of_encoder(choice)
        return choice.input_size or self.config.data.input_size

    def _side_of_encoder(self, choice: NetworkChoice) -> int:
        """Side at which an encoder sees tiles at the magnification it was trained at; its own where that is unknown."""
        name = choice.architecture or ""
        about, patch = encoder_of(name), patch_size(name, choice.options)
        if self.collection.mpp is None or about.mpp is None:
            return max(1, about.input_size // patch) * patch
        pixels = self._shorter_side() * self.collection.mpp / about.mpp
        return min(max(_FEWEST_PATCHES, round(pixels / patch)), _LARGEST_SIDE // patch) * patch

    def create(self, name: str, choice: NetworkChoice, like: NetworkSpec | None = None) -> Checkpoint:
        """Build a network with random weights that depend on the seed and the name only.

        Parameters
        ----------
        name
            ``"teacher"``, ``"teacher_2"`` or ``"student"``.
        choice
            Its architecture.
        like
            Description of the network whose normalisation it shares.
        """
        spec = self._spec(choice, like)
        self._check_size(spec, self.side(choice))
        torch.manual_seed(stable_hash(self.config.seed, "weights", name))
        network = create_from(spec)
        if choice.encoder_weights is not None:
            load_encoder(network, choice.encoder_weights)
        keep_named_layers(network, self.revision)
        return Checkpoint(network, spec, Path(f"{name}.safetensors"))

    def encoder(self, choice: NetworkChoice) -> Checkpoint:
        """Load a foundation encoder: it has no classes, and its own idea of size, colours and magnification."""
        about = encoder_of(choice.architecture or "")
        side, channels = self.side(choice), self.collection.channels
        statistics: dict[str, Any] = {"mean": choice.mean or about.mean, "std": choice.std or about.std}
        spec = NetworkSpec(
            architecture=choice.architecture or "",
            in_channels=channels,
            classes=(),
            options=choice.options,
            mpp=about.mpp,
            input_size=about.input_size,
            **({} if channels != len(statistics["mean"]) else statistics),
        )
        self._check_size(spec, side)
        assert choice.checkpoint is not None, "the configuration asks for it"
        loaded = load(choice.checkpoint, expect=spec)
        patch, ours = patch_size(spec.architecture, spec.options), self._mpp(side)
        seen = f" at {ours:.2g} µm per pixel" if ours else ""
        count = side // patch
        self.emit(
            Message(
                f"{spec.architecture} sees {side} x {side} pixels{seen}: {count} x {count} patches of {patch} pixels."
            )
        )
        return loaded

    def load(self, name: str, choice: NetworkChoice, path: Path, *, to_train: bool = False) -> Checkpoint:
        """Load a network and compare it with the data.

        Parameters
        ----------
        name
            ``"teacher"``, ``"teacher_2"`` or ``"student"``.
        choice
            Names the architecture, where the file holds weights only.
        path
            The checkpoint.
        to_train
            Whether it is trained from there on, which a network that can only be run is refused for.

        Raises
        ------
        CheckpointError
            If it cannot be loaded.
        ConfigurationError
            If it has other classes or channels than the data.
        """
        torch.manual_seed(stable_hash(self.config.seed, "weights", name))  # of a new head
        title, side = name.replace("_", " "), self.side(choice)
        loaded = load(
            path,
            expect=None if choice.architecture is None else self._spec(choice, None),
            new_head=self.collection.classes if choice.new_head else None,
        )
        keep_named_layers(loaded.module, self.revision)
        if to_train and not any(True for _ in loaded.module.parameters()):
            raise ConfigurationError(
                f"The {title} {path.name} is an ONNX file, which can be run but not trained. Choose its checkpoint "
                "(.safetensors), or an architecture."
            )
        if loaded.new_head:
            self._warn(
                f"The {title} {path.name} has other classes than the data, so it gets a new head "
                f"({', '.join(loaded.new_head)}), which is trained here."
            )
        spec, classes, channels = loaded.spec, self.collection.classes, self.collection.channels
        if len(spec.classes) != len(classes):
            raise ConfigurationError(
                f"The {title} {path.name} has {len(spec.classes)} classes ({', '.join(spec.classes)}), the data "
                f"have {len(classes)} ({', '.join(classes)}). Choose a {title} trained for these classes, other data, "
                "or ask for a new head, which is then trained (--new-head, or 'New head' in the window)."
            )
        if spec.in_channels != channels:
            raise ConfigurationError(
                f"The {title} {path.name} takes images of {spec.in_channels} channels, but these have {channels}. "
                f"Choose a {title} trained on such images."
            )
        self._check_size(spec, side)
        if spec.classes != classes:
            self._warn(
                f"The {title} calls its classes {', '.join(spec.classes)}, the data {', '.join(classes)}; they are "
                "taken to be the same in this order."
            )
        ours = self._mpp(side)
        if spec.mpp and ours and not 1 / SCALE_TOLERANCE < spec.mpp / ours < SCALE_TOLERANCE:
            self._warn(
                f"The {title} was trained at {spec.mpp:g} µm per pixel, here it sees {ours:g}. It may do "
                f"worse than it can: an input size of {round(side * ours / spec.mpp)} would suit it."
            )
        elif not (spec.mpp and ours) and spec.input_size not in (None, side):
            self._warn(
                f"The {title} was trained on tiles of {spec.input_size} pixels, here it sees {side}. If it does worse "
                f"than it can, give it the input size {spec.input_size}."
            )
        return loaded

    def of_the_data(self, choice: NetworkChoice) -> dict[str, Any]:
        """Return what a network trained here takes from the data."""
        side = self.side(choice)
        return {"classes": self.collection.classes, "mpp": self._mpp(side), "input_size": side}

    def _spec(self, choice: NetworkChoice, like: NetworkSpec | None) -> NetworkSpec:
        shared: dict[str, Any] = (
            {} if like is None else {"mean": like.mean, "std": like.std, "colours": like.colours}
        )
        shared |= {key: value for key in ("mean", "std") if (value := getattr(choice, key)) is not None}
        return NetworkSpec(
            architecture=choice.architecture or "",
            in_channels=self.collection.channels,
            options=choice.options,
            multiple=choice.multiple,
            revision=self.revision,
            **self.of_the_data(choice),
            **shared,
        )

    def _mpp(self, input_side: int) -> float | None:
        """Micrometres per pixel as the networks see it: tiles are resized to the input size."""
        if self.collection.mpp is None:
            return None
        return self.collection.mpp * self._shorter_side() / input_side

    def _shorter_side(self) -> float:
        return median(min(tile.size) for tile in self.collection.train)

    def _check_size(self, spec: NetworkSpec, size: int) -> None:
        multiple, smallest = input_multiple(spec), smallest_input(spec)
        if size < smallest:
            raise ConfigurationError(
                f"{spec.architecture} takes images of {smallest} pixels or more, not {size}. Set the input size to "
                f"{smallest}."
            )
        if size % multiple:
            nearest = max(1, round(size / multiple)) * multiple
            raise ConfigurationError(
                f"{spec.architecture} takes images whose side is a multiple of {multiple}, not {size}. Set the "
                f"input size to {nearest}."
            )

    def _warn(self, text: str) -> None:
        self.emit(Message(text, "warning"))
