"""A network that onnxruntime computes, in the clothes of a torch module: logits in float32, no layers to look into."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_kdseg.errors import CheckpointError, ConfigurationError, is_out_of_memory
from napari_kdseg.networks.foreign.onnx_file import OnnxFacts, header_of, open_session, undescribed_message
from napari_kdseg.networks.spec import NetworkSpec


class OnnxNetwork(nn.Module):
    """Runs an ONNX file. May be used by several threads; each is computed by as many as torch has in it.

    Parameters
    ----------
    path
        The file: one input, float32 ``[N, C_in, H, W]`` of any height and width; its first output is
        ``[N, classes, H, W]``.

    Attributes
    ----------
    described
        What the file says of itself; ``None`` if it is of another program.
    facts
        What was found out about it when it was written; ``None`` likewise.
    channels, classes
        Fixed numbers of its input and output channels; ``None`` where the file leaves them open.

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
        if len(output.shape) != 4:
            raise CheckpointError(
                f"The output of {path} has {len(output.shape)} dimensions {output.shape}, but a mask needs "
                "[N, classes, height, width]. Export a segmentation network, with its map of logits first."
            )
        batch, channels, *sides = inputs[0].shape
        if fixed := [side for side in sides if isinstance(side, int)]:
            raise CheckpointError(
                f"{path} takes images of {' x '.join(map(str, sides))} pixels only ({len(fixed)} sides are fixed). "
                "Export it again with height and width left free (dynamic axes)."
            )
        self.channels, self.classes = (
            size if isinstance(size, int) else None for size in (channels, output.shape[1])
        )
        self._one_by_one = batch == 1
        self._names = inputs[0].name, output.name
        self.notes: tuple[str, ...] = ()

    def spec(self, expect: NetworkSpec | None) -> NetworkSpec:
        """Return its description: that in the file, else ``expect``.

        Raises
        ------
        CheckpointError
            If there is neither, or its numbers of classes and channels are not those of the network.
        """
        spec = self.described or expect
        if spec is None:
            raise CheckpointError(undescribed_message(self.path))
        for wanted in (spec, expect or spec):
            for noun, has, needs in (
                ("classes", self.classes or len(spec.classes), len(wanted.classes)),
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
        session = self._session(torch.get_num_threads(), image.device.type == "cuda")
        pixels = image.detach().to("cpu", torch.float32).contiguous()
        parts = pixels.split(1) if self._one_by_one else [pixels]
        source, result = self._names
        try:
            found = [session.run([result], {source: part.numpy()})[0] for part in parts]
        except Exception as error:  # its classes have no common parent of their own
            if is_out_of_memory(error):
                raise
            raise ConfigurationError(
                f"{self.path.name} cannot segment images of {list(image.shape)}: "
                f"{str(error).strip().splitlines()[0]}"
            ) from error
        return torch.cat([torch.from_numpy(part) for part in found]).to(image.device)

    def _session(self, threads: int, cuda: bool) -> Any:
        with self._lock:
            if (threads, cuda) not in self._sessions:
                self._sessions[threads, cuda] = open_session(self.path, threads=threads, cuda=cuda)
            return self._sessions[threads, cuda]
