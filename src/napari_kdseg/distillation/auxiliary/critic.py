"""The critic of adversarial distillation: its network, how it learns beside the student, and how before it.

CoCo DistillNet (Zou and Sun, BIBM 2021, sect. III-C) and the holistic part of SKD (Liu et al., CVPR 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from napari_kdseg.distillation.losses.adversarial import critic_loss, gradient_penalty, student_loss
from napari_kdseg.distillation.losses.common import averaged_squares, same_shape
from napari_kdseg.distillation.settings import AloneSettings
from napari_kdseg.distillation.stages import TrainingStage, random_generator
from napari_kdseg.distillation.view import View
from napari_kdseg.errors import ConfigurationError
from napari_kdseg.networks import shares

WIDTHS = (64, 128, 256, 512)
SLOPE = 0.1
SMALLEST_SIDE = 64
POLY_POWER = 0.9


class Critic(nn.Module):
    """Score how much an output looks like the teacher's: four strided convolutions, two of them with self-attention.

    Four 4 x 4 convolutions of stride 2 (64, 128, 256, 512 channels; spectral norm, LeakyReLU 0.1), self-attention after
    the third and fourth, a 4 x 4 convolution to a map of patch scores, and their mean.

    Parameters
    ----------
    classes
        Channels of the outputs scored.
    image_channels
        Channels of the image the scores are conditioned on; 0 for none.
    attention
        Whether there is self-attention. Its memory grows with the fourth power of the tile's side: 64 MiB an image
        at 512 x 512.
    widths
        Channels of the four strided convolutions.
    normalise
        Whether a batch normalisation of the output comes first, as in SKD's code, whose critic reads logits: student
        and teacher are then normalised each by itself, and what their scales differ by is not seen.

    Notes
    -----
    The paper does not describe its discriminator; this is the one of SKD, which its authors' code has. They
    concatenate the image in the paper but feed outputs alone in the published code; both are possible here. An output
    below 64 pixels a side, too small for five convolutions, is padded by repeating its border.
    """

    def __init__(
        self,
        classes: int,
        image_channels: int = 0,
        *,
        attention: bool = True,
        widths: tuple[int, int, int, int] = WIDTHS,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        self.image_channels = image_channels
        self.normalise = nn.BatchNorm2d(classes) if normalise else None
        layers: list[nn.Module] = []
        before = classes + image_channels
        for level, width in enumerate(widths):
            layers += [spectral_norm(nn.Conv2d(before, width, 4, 2, 1)), nn.LeakyReLU(SLOPE)]
            if attention and level >= 2:
                layers.append(SelfAttention(width))
            before = width
        self.layers = nn.Sequential(*layers)
        self.score = nn.Conv2d(before, 1, 4)

    def forward(self, output: Tensor, image: Tensor | None = None) -> Tensor:
        """Return the score of each image, ``[N]`` in float32: the mean of its patch scores.

        Parameters
        ----------
        output
            ``[N, C, H, W]`` class probabilities.
        image
            ``[N, D, H, W]``, needed if the critic is conditioned and unused if not; brought to the size of ``output``.

        Raises
        ------
        ConfigurationError
            If the critic is conditioned on an image and gets none.
        """
        return self.patches(output, image).mean(dim=(1, 2, 3))

    def patches(self, output: Tensor, image: Tensor | None = None) -> Tensor:
        """Return the map of patch scores, ``[N, 1, h, w]`` in float32; parameters as those of :meth:`forward`.

        An output of up to 79 pixels a side has one patch, one of 96 has 3 x 3, one of 256 has 13 x 13.
        """
        return self._patches([output], image)

    def both(self, student: Tensor, teacher: Tensor, image: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Score two outputs of the same images in one pass: ``[N]`` each.

        Spectral norm sharpens its estimate with each pass, and the difference between two passes would count as
        distance.
        """
        scores = self._patches([student, teacher], image).mean(dim=(1, 2, 3))
        of_student, of_teacher = scores.chunk(2)
        return of_student, of_teacher

    def _patches(self, outputs: list[Tensor], image: Tensor | None) -> Tensor:
        with torch.autocast(outputs[0].device.type, enabled=False):
            each = [output.float() for output in outputs]
            if self.normalise is not None:
                each = [self.normalise(output) for output in each]
            if self.image_channels:
                condition = _condition(image, each[0].shape[-2:])
                each = [torch.cat([output, condition], dim=1) for output in each]
            seen = torch.cat(each)
            height, width = seen.shape[-2:]
            missing = max(SMALLEST_SIDE - width, 0), max(SMALLEST_SIDE - height, 0)
            if any(missing):
                seen = F.pad(seen, (0, missing[0], 0, missing[1]), mode="replicate")
            scores: Tensor = self.score(self.layers(seen))
            return scores


def _condition(image: Tensor | None, size: torch.Size) -> Tensor:
    if image is None:
        raise ConfigurationError(
            "The critic is conditioned on the image, but got none. Give it the image, or turn conditioning off."
        )
    image = image.detach().float()
    if image.shape[-2:] == size:
        return image
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)


class SelfAttention(nn.Module):
    """Self-attention over pixels, added to its input with a learned factor that starts at 0 (SAGAN, Zhang et al. 2019).

    Written out, because the fused attention of torch has no second derivative, which a gradient penalty needs.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.factor = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, c, h, w]`` -> the same shape."""
        query, key, value = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        attention = (query.mT @ key).softmax(dim=2)
        attended: Tensor = (value @ attention.mT).view_as(x)
        return x + self.factor * attended


def new_critic(
    classes: int,
    image_channels: int,
    seed: int,
    *,
    attention: bool = True,
    widths: tuple[int, int, int, int] = WIDTHS,
    normalise: bool = False,
) -> Critic:
    """Return a :class:`Critic` with weights drawn from ``seed``; the global generators stay as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Critic(classes, image_channels, attention=attention, widths=widths, normalise=normalise)


def _adam(parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """Return the optimiser of CoCo DistillNet; the weight decay is its paper's for all three networks."""
    return torch.optim.Adam(parameters, lr=rate, betas=(0.9, 0.99), weight_decay=2e-4)


def _sgd(parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """Return the optimiser of SKD's code (its script's weight decay)."""
    return torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=5e-4)


OPTIMISERS = {"adam": _adam, "sgd": _sgd}


class AdversarialDistillation(nn.Module):
    r"""Student's loss :math:`-E[D(S)]`, with a critic that takes a step of its own after each of the student's.

    A learned term: called with ``(logits, image)`` of the student, or its logits alone, and the teacher's logits. It
    reads no labels. By default the critic scores softmax probabilities, which are bounded and comparable between
    networks (the code of CoCo's authors takes the hyperbolic tangent of logits, SKD's a batch normalisation of them).

    The order is that of the authors' code: the student steps against a fixed critic, then the critic on the same
    outputs, detached.

    Parameters
    ----------
    critic
        Network to train, perhaps trained before by :class:`CriticStage`.
    generator
        CPU generator of the points where the gradient penalty is taken.
    penalty
        Coefficient of the gradient penalty.
    learning_rate
        Of the critic's optimiser, in the first epoch; polynomial decay by epochs.
    optimiser
        ``"adam"`` (CoCo DistillNet's) or ``"sgd"`` (SKD's).
    weight
        Factor of all that the critic minimises; matters to SGD alone.
    reads
        What of the logits the critic scores: their softmax ``"probabilities"``, or the ``"logits"`` as they are, for a
        critic that normalises.
    stride
        Side in pixels of the squares over which logits are averaged before.
    """

    own_optimiser = True

    def __init__(
        self,
        critic: Critic,
        generator: torch.Generator,
        *,
        penalty: float = 10.0,
        learning_rate: float = 2e-4,
        optimiser: Literal["adam", "sgd"] = "adam",
        weight: float = 1.0,
        reads: Literal["probabilities", "logits"] = "probabilities",
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.critic = critic
        self.penalty = penalty
        self.learning_rate = learning_rate
        self.weight = weight
        self.reads = reads
        self.stride = stride
        self._generator = generator
        self._optimiser = OPTIMISERS[optimiser](critic.parameters(), learning_rate)
        self._last: tuple[Tensor, Tensor, Tensor | None] | None = None

    def forward(
        self,
        student: Tensor | tuple[Tensor, Tensor],
        teacher: Tensor,
        target: Tensor | None = None,  # noqa: ARG002
        ignore_index: int = 255,  # noqa: ARG002
    ) -> Tensor:
        """Return :math:`-E[D(S)]`, a scalar whose gradient reaches the student but not the critic.

        Raises
        ------
        ConfigurationError
            If student and teacher have other classes, or a conditioned critic gets no image.
        """
        logits, image = (student, None) if isinstance(student, Tensor) else student
        logits, teacher = same_shape(logits, teacher, "output")
        output = self._read(logits)
        # The critic of SKD's code is in training mode here, too: its batch normalisation takes the batch's statistics.
        self.critic.train(self.critic.normalise is not None).requires_grad_(False)
        try:
            value = student_loss(self.critic(output, image))
        finally:
            self.critic.requires_grad_(True)
        if torch.is_grad_enabled():
            self._last = output.detach(), self._read(teacher), image
        return value

    def _read(self, logits: Tensor) -> Tensor:
        logits = averaged_squares(logits, self.stride)
        return logits if self.reads == "logits" else logits.softmax(dim=1)

    def after_step(self, epoch: int, epochs: int) -> dict[str, float]:
        """Take one step of the critic on the outputs of the last forward pass, and return its figures."""
        if self._last is None:
            return {}
        student, teacher, image = self._last
        self._last = None
        for group in self._optimiser.param_groups:
            group["lr"] = self.learning_rate * (1 - min(epoch / max(epochs, 1), 1)) ** POLY_POWER
        self.critic.train()
        with torch.enable_grad():
            values = critic_values(self.critic, student, teacher, image, self.penalty, self._generator)
            self._optimiser.zero_grad(set_to_none=True)
            (self.weight * values["loss"]).backward()
        shares().average(self.critic.parameters())
        self._optimiser.step()
        numbers = torch.stack([value.detach() for value in values.values()]).tolist()
        return dict(zip(values, numbers, strict=True))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the optimiser's moments with the parameters."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch gives it no types
        self._optimiser.load_state_dict(self._optimiser.state_dict())
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """Return optimiser and generator."""
        return {"optimiser": self._optimiser.state_dict(), "generator": self._generator.get_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`get_extra_state` returned."""
        self._optimiser.load_state_dict(state["optimiser"])
        self._generator.set_state(state["generator"].cpu())
        self._last = None


def critic_values(
    critic: Critic,
    student: Tensor,
    teacher: Tensor,
    image: Tensor | None,
    penalty: float,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return what the critic minimises as ``loss``, and of it ``distance`` E[D(T)] - E[D(S)] and ``penalty``."""
    loss = critic_loss(*critic.both(student, teacher, image))
    slope = gradient_penalty(critic.patches, student, teacher, image, generator=generator)
    return {"distance": -loss, "penalty": slope, "loss": loss + penalty * slope}


class CriticStage(TrainingStage):
    """Train the critic to tell the teacher from the untrained student: step 2 of CoCo DistillNet's training.

    Neither network is changed: both are in eval mode, so that the student's running statistics stay as they are. It
    reads no labels.

    Parameters
    ----------
    critic
        Network to train.
    teacher, student
        Networks told apart.
    settings
        Constants every stage has.
    view, student_view
        What turns a batch into the input of either; ``None``: it is as it is.
    penalty
        Coefficient of the gradient penalty.
    seed
        Of the points where it is taken.
    epochs_factor, learning_rate_factor
        Relative to the student's.
    """

    segments = False

    def __init__(
        self,
        critic: Critic,
        teacher: nn.Module,
        student: nn.Module,
        settings: AloneSettings,
        *,
        view: View | None = None,
        student_view: View | None = None,
        penalty: float = 10.0,
        seed: int = 0,
        epochs_factor: float = 1.0,
        learning_rate_factor: float = 1.0,
    ) -> None:
        super().__init__(
            "critic",
            "Critic",
            critic,
            settings,
            epochs_factor=epochs_factor,
            learning_rate_factor=learning_rate_factor,
        )
        self.teacher = teacher
        self.student = student
        self.view = view or View()
        self.student_view = student_view or View()
        self.penalty = penalty
        self._conditioned = critic.image_channels > 0
        self._generator = random_generator(seed, self.name)

    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """Return ``distance``, ``penalty`` and ``loss`` as :func:`critic_values` does."""
        seen = self.student_view(image)
        student, teacher = same_shape(
            _answer(self.student, seen), _answer(self.teacher, self.view(image)), "output"
        )
        return critic_values(
            cast(Critic, self.network),  # or what torch.compile wrapped it in
            student.softmax(dim=1),
            teacher.softmax(dim=1),
            seen if self._conditioned else None,
            self.penalty,
            self._generator,
        )

    def image_networks(self) -> list[nn.Module]:
        """Return teacher and student; the critic takes their outputs, and its gradient penalty a second derivative."""
        return [self.teacher, self.student]

    def to(self, device: torch.device | str) -> Self:
        """Move critic, teacher and student to ``device``, in place."""
        for module in (self.teacher, self.student, self.view, self.student_view):
            module.to(device)
        return super().to(device)

    def state_dict(self) -> dict[str, Any]:
        """Return epoch, sums and random generator."""
        return {**super().state_dict(), "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        super().load_state_dict(state)
        self._generator.set_state(state["generator"].cpu())


@torch.no_grad()
def _answer(network: nn.Module, image: Tensor) -> Tensor:
    """Return the logits of a network in eval mode, and leave it as it was."""
    training = network.training
    try:
        logits: Tensor = network.eval()(image)
        return logits
    finally:
        network.train(training)
