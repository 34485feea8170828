"""The paraphraser of CoCo DistillNet (Zou and Sun, BIBM 2021, eq. 5-6): its network, its training, and its use.

After Factor Transfer (Kim, Park and Kwak, NeurIPS 2018): an auto-encoder whose code stands for the teacher's feature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Self, cast

import torch
from torch import Tensor, nn

from napari_kdseg.distillation.declarations import LOGITS
from napari_kdseg.distillation.losses.reconstruction import reconstruction
from napari_kdseg.distillation.settings import AloneSettings
from napari_kdseg.distillation.stages import TrainingStage
from napari_kdseg.errors import ConfigurationError
from napari_kdseg.networks import capture, find_taps, tap_of
from napari_kdseg.networks.anatomy.named_layers import is_layer_name

SLOPE = 0.1


class Paraphraser(nn.Module):
    """Auto-encoder of one layer of the teacher: three 3 x 3 convolutions to a code, three transposed ones back.

    LeakyReLU 0.1 after every layer, no batch normalisation.

    Parameters
    ----------
    channels
        Of the teacher's feature.
    code
        Channels ``k`` of the code; the authors take the student's at the layer compared.
    final_activation
        Whether the last layer too is followed by LeakyReLU.

    Notes
    -----
    In the authors' code it is, which shrinks negative values tenfold: a linear feature, such as they tap, cannot be
    reconstructed well. The default here is a linear last layer.
    """

    def __init__(self, channels: int, code: int, *, final_activation: bool = False) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(channels, code, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(code, code, 3, padding=1),
            nn.LeakyReLU(SLOPE),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(code, code, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.ConvTranspose2d(code, channels, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.ConvTranspose2d(channels, channels, 3, padding=1),
        )
        if final_activation:
            self.decoder.append(nn.LeakyReLU(SLOPE))

    def forward(self, feature: Tensor) -> Tensor:
        """Train mode: return the reconstruction P(F) of ``[N, c, h, w]``, the same shape."""
        reconstructed: Tensor = self.decoder(self.encoder(feature.float()))
        return reconstructed

    def paraphrase(self, feature: Tensor) -> Tensor:
        """Paraphrase mode: return the code F' ``[N, k, h, w]``; no gradient flows."""
        with torch.no_grad():
            code: Tensor = self.encoder(feature.float())
        return code


class Paraphrasers(nn.Module):
    """One :class:`Paraphraser` for each layer of the teacher.

    Parameters
    ----------
    channels, codes
        Channels of each feature and of its code, in the order of the layers.
    final_activation
        As in :class:`Paraphraser`.
    """

    def __init__(
        self, channels: Sequence[int], codes: Sequence[int], *, final_activation: bool = False
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Paraphraser(c, k, final_activation=final_activation) for c, k in zip(channels, codes, strict=True)
        )

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the reconstructions of the features, in their order."""
        return tuple(layer(feature) for layer, feature in zip(self.layers, features, strict=True))

    def paraphrase(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the codes of the features, in their order; no gradient flows."""
        layers = cast(Iterable[Paraphraser], self.layers)
        return tuple(layer.paraphrase(feature) for layer, feature in zip(layers, features, strict=True))


def new_paraphrasers(
    channels: Sequence[int], codes: Sequence[int], seed: int, *, final_activation: bool = False
) -> Paraphrasers:
    """Return :class:`Paraphrasers` with weights drawn from ``seed``; the global generators stay as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Paraphrasers(channels, codes, final_activation=final_activation)


class ParaphrasedTeacher(nn.Module):
    """A loss that compares the student with the paraphrased teacher: a learned term that holds the paraphrasers.

    They were trained by :class:`ParaphraserStage` before and are frozen here. The student's features are taken as they
    are: the authors leave out Factor Transfer's translator.

    Parameters
    ----------
    loss
        ``loss(student, teacher, target, ignore_index=255) -> scalar``.
    paraphrasers
        The very module of the stage, one for each layer of the teacher.
    """

    own_optimiser = True
    """Keeps the paraphrasers out of the student's optimiser; here nothing is stepped."""

    def __init__(self, loss: Callable[..., Tensor], paraphrasers: Paraphrasers) -> None:
        super().__init__()
        self.loss = loss
        self.paraphrasers = paraphrasers

    def forward(
        self,
        student: tuple[Tensor, ...],
        teacher: tuple[Tensor, ...],
        target: Tensor | None = None,
        ignore_index: int = 255,
    ) -> Tensor:
        """Return the loss of the student's features against the codes of the teacher's."""
        return self.loss(student, self.paraphrasers.paraphrase(teacher), target, ignore_index=ignore_index)

    def after_step(self, epoch: int, epochs: int) -> dict[str, float]:  # noqa: ARG002
        """Do nothing: the paraphrasers are trained already."""
        return {}


class ParaphraserStage(TrainingStage):
    """Train the paraphrasers on the frozen teacher's features: L_rec, step 1 of CoCo DistillNet's training.

    It reads no labels. The authors train them with SGD; here they share the optimiser of all stages.

    Parameters
    ----------
    teacher
        Frozen network.
    layers
        Paths of the layers paraphrased.
    paraphrasers
        Network to train, one paraphraser for each layer.
    settings
        Constants every stage has.
    epochs_factor
        Relative to the student's.
    """

    segments = False
    input_of: int | None = 0

    def __init__(
        self,
        teacher: nn.Module,
        layers: Sequence[str],
        paraphrasers: Paraphrasers,
        settings: AloneSettings,
        *,
        epochs_factor: float = 1.0,
    ) -> None:
        super().__init__("paraphraser", "Paraphraser", paraphrasers, settings, epochs_factor=epochs_factor)
        self.teacher = teacher
        self.layers = tuple(layers)

    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """Return L_rec as ``reconstruction`` and ``loss``."""
        self.teacher.eval()
        with torch.no_grad(), capture(self.teacher, self.layers) as seen:
            self.teacher(image)
        features = tuple(seen[layer] for layer in self.layers)
        value = reconstruction(self.network(features), features)
        return {"reconstruction": value, "loss": value}

    def image_networks(self) -> list[nn.Module]:
        """Return the teacher; the paraphrasers take features."""
        return [self.teacher]

    def to(self, device: torch.device | str) -> Self:
        """Move teacher and paraphrasers to ``device``, in place."""
        self.teacher.to(device)
        return super().to(device)


def layers_and_shapes(
    network: nn.Module, taps: Sequence[str], input_shape: tuple[int, int, int]
) -> tuple[list[str], list[torch.Size]]:
    """Resolve names such as ``"@deep"`` and pass a blank image through ``network``.

    Parameters
    ----------
    network
        Its weights and running statistics are not touched.
    taps
        Module paths, names or :data:`~napari_kdseg.distillation.LOGITS`.
    input_shape
        ``(D, H, W)`` of an image.

    Returns
    -------
    tuple
        The path of each tap, and the shape ``[1, c, h, w]`` of what it puts out.

    Raises
    ------
    ConfigurationError
        If a layer does not exist or puts out no feature map.
    """
    found = find_taps(network, input_shape) if any(map(is_layer_name, taps)) else {}
    paths = [tap_of(found, tap) for tap in taps]
    some, training = next(network.parameters()), network.training
    try:
        with torch.no_grad(), capture(network, [path for path in paths if path != LOGITS]) as seen:
            logits = network.eval()(torch.zeros(1, *input_shape, device=some.device, dtype=some.dtype))
    finally:
        network.train(training)
    shapes = [logits.shape if path == LOGITS else seen[path].shape for path in paths]
    for path, shape in zip(paths, shapes, strict=True):
        if len(shape) != 4:
            raise ConfigurationError(
                f"The layer {path!r} puts out {list(shape)}, no feature map [N, c, h, w]. Tap another layer."
            )
    return paths, shapes
