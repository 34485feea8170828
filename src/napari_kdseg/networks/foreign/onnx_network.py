"""A network that onnxruntime computes, in the clothes of a torch module: logits in float32, no layers to look into."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_kdseg.errors import CheckpointError, ConfigurationError, is_out_of_memory
from napari_kdseg.networks.foreign.onnx_ending import (
    OnnxEnding,
    channels_are_last,
    find_ending,
    refuse_class_numbers,
)
from napari_kdseg.networks.foreign.onnx_file import (
    FOREIGN,
    OnnxFacts,
    header_of,
    open_session,
    undescribed_message,
)
from napari_kdseg.networks.spec import NetworkSpec


class OnnxNetwork(nn.Module):
    """Runs an ONNX file. May be used by several threads; each is computed by as many as torch has in it.

    Parameters
    ----------
    path
        The file: one input, float32 ``[N, C_in, H, W]`` or ``[N, H, W, C_in]`` of any height and width; its first
        output is ``[N, classes, H, W]`` or ``[N, H, W, classes]``, logits or probabilities.

    Attributes
    ----------
    described
        What the file says of itself; ``None`` if it is of another program.
    facts
        What was found out about it when it was written; ``None`` likewise.
    channels
        Fixed number of its input channels; ``None`` where the file leaves it open.
    ending
        How its output is read: logits, unless :meth:`settle` found it to be something else.

    Raises
    ------
    CheckpointError
        If the file is damaged or its input or output is not an image.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self._sessions: dict[tuple[int, bool], Any] = {}
        self._lock = threading.Lock()
        session = self._session(torch.get_num_threads(), False)
        self.described: NetworkSpec | None
        self.facts: OnnxFacts | None
        self.described, self.facts = header_of(session, path)
        inputs, output = session.get_inputs(), session.get_outputs()[0]
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 4:
            found = ", ".join(f"{item.name} {item.type} {item.shape}" for item in inputs)
            raise CheckpointError(
                f"{path} takes {found}, but a network for slides takes one image, float32 [N, channels, height, "
                "width]. Export it again with such an input."
            )
        if not output.type.startswith(("tensor(float", "tensor(double")):
            refuse_class_numbers(path)
        if len(output.shape) != 4:
            raise CheckpointError(
                f"The output of {path} has {len(output.shape)} dimensions {output.shape}, but a mask needs "
                "[N, classes, height, width]. Export a segmentation network with its map of logits first, and without "
                "argmax."
            )
        self._channels_last = channels_are_last(inputs[0].shape)
        batch, *sides = inputs[0].shape
        channels = sides.pop(-1 if self._channels_last else 0)
        if fixed := [side for side in sides if isinstance(side, int)]:
            raise CheckpointError(
                f"{path} takes images of {' x '.join(map(str, sides))} pixels only ({len(fixed)} sides are fixed). "
                "Export it again with height and width left free (dynamic axes)."
            )
        self.channels = channels if isinstance(channels, int) else None
        self._one_by_one = batch == 1
        self._names = inputs[0].name, output.name
        self.ending = self._known_ending()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided of a file of another program, in sentences."""
        said = list(self.ending.notes()) if self.ending else []
        if self._channels_last:
            said.insert(0, "It takes channels last, [N, height, width, channels]: images are turned to that.")
        return tuple(said)

    def settle(self, channels: int, multiple: int) -> OnnxEnding:
        """Find out how the output is to be read, by an image of noise; once.

        Parameters
        ----------
        channels, multiple
            Of its images, and what their sides must be multiples of.

        Raises
        ------
        CheckpointError
            If it has no value for each class.
        """
        if self.ending is None:
            size = 4 * multiple, 6 * multiple
            noise = torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0))
            self.ending = find_ending(self.path, self._run(noise)[0], size)
        return self.ending

    def spec(self, expect: NetworkSpec | None) -> NetworkSpec:
        """Return its description: that in the file, else ``expect``.

        Raises
        ------
        CheckpointError
            If there is neither, its numbers of classes and channels are not those of the network, or its output
            cannot be read (:meth:`settle`).
        """
        spec = self.described or expect
        if spec is None:
            raise CheckpointError(undescribed_message(self.path))
        if self.ending is None and self.channels in (None, spec.in_channels):
            self.settle(spec.in_channels, int(spec.multiple or spec.options.get("multiple", 32)))
        classes = self._classes()
        for wanted in (spec, expect or spec):
            for noun, has, needs in (
                ("classes", classes or len(spec.classes), len(wanted.classes)),
                ("channels", self.channels or spec.in_channels, wanted.in_channels),
            ):
                if has != needs:
                    raise CheckpointError(
                        f"This checkpoint ({self.path.name}) has {has} {noun}, the network asked for {needs}. "
                        "Choose another checkpoint."
                    )
        return spec

    def forward(self, image: Tensor) -> Tensor:
        """Compute the logits; float ``[N, C_in, H, W]`` -> float32 ``[N, classes, H, W]`` on the same device."""
        found = torch.cat([torch.from_numpy(part) for part in self._run(image)])
        return (self.ending or OnnxEnding()).logits(found).to(image.device)

    def _known_ending(self) -> OnnxEnding | None:
        """Return how the output is read, where the file says it; those written here put out logits."""
        if self.facts is not None and self.facts.ends is not None:
            return OnnxEnding(kind=self.facts.ends, classes_last=self.facts.classes_last)
        return OnnxEnding() if self.described is not None and self.described.architecture != FOREIGN else None

    def _classes(self) -> int | None:
        """Return the number of classes that the file fixes; one output is that of class 1 of two."""
        shape = self._session(torch.get_num_threads(), False).get_outputs()[0].shape
        if len(shape) != 4:
            return None
        classes = shape[3 if self.ending and self.ending.classes_last else 1]
        return (2 if classes == 1 else classes) if isinstance(classes, int) else None

    def _run(self, image: Tensor) -> list[np.ndarray]:
        """Return what the file puts out, as it does, for images ``[N, C_in, H, W]``."""
        session = self._session(torch.get_num_threads(), image.device.type == "cuda")
        pixels = image.detach().to("cpu", torch.float32)
        pixels = (pixels.movedim(1, -1) if self._channels_last else pixels).contiguous()
        parts = pixels.split(1) if self._one_by_one else [pixels]
        source, result = self._names
        try:
            return [session.run([result], {source: part.numpy()})[0] for part in parts]
        except Exception as error:  # its classes have no common parent of their own
            if is_out_of_memory(error):
                raise
            raise ConfigurationError(
                f"{self.path.name} cannot segment images of {list(image.shape)}: "
                f"{str(error).strip().splitlines()[0]}"
            ) from error

    def _session(self, threads: int, cuda: bool) -> Any:
        with self._lock:
            if (threads, cuda) not in self._sessions:
                self._sessions[threads, cuda] = open_session(self.path, threads=threads, cuda=cuda)
            return self._sessions[threads, cuda]
