"""How PLC-KD's two assistants are trained: on false-pixel images, and on boundary-transformed images.

Wang et al., MICCAI 2024, sect. 2.2 to 2.4 (losses L_F and L_B). Both have the teacher's architecture.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from napari_kdseg.distillation.correction.boundary import boundary_transform
from napari_kdseg.distillation.correction.false_pixels import FalsePixelQueues, false_pixel_images
from napari_kdseg.distillation.correction.masks import TrainingMasks
from napari_kdseg.distillation.correction.teacher_team import run_frozen
from napari_kdseg.distillation.declarations import LOGITS
from napari_kdseg.distillation.settings import PlcKdSettings
from napari_kdseg.distillation.stages import IGNORE_INDEX, TrainingStage, random_generator
from napari_kdseg.errors import ConfigurationError

if TYPE_CHECKING:
    from napari_kdseg.distillation.declarations import SampleMasks

logger = logging.getLogger(__name__)


def new_assistant(teacher: nn.Module, settings: PlcKdSettings, seed: int) -> nn.Module:
    """Return a trainable network of the teacher's architecture.

    The paper does not say where assistants start. From the teacher's weights (default) they need little
    training to complement it; ``settings.initialise = "scratch"`` draws new weights with ``reset_parameters``
    of each layer, and a truncated normal of deviation 0.02 for bare parameters such as a transformer's
    position embeddings.

    Raises
    ------
    ConfigurationError
        If a layer does not know how to draw new weights.
    """
    assistant = copy.deepcopy(teacher).requires_grad_(True).train()
    if settings.initialise == "teacher":
        return assistant
    device = next(teacher.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, module in assistant.cpu().named_modules():
            _draw_new_weights(name, module)
    return assistant.to(device)


def _draw_new_weights(name: str, module: nn.Module) -> None:
    reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    if reset is not None:
        reset()
        return
    for parameter_name, parameter in module.named_parameters(recurse=False):
        if parameter.ndim < 2:
            raise ConfigurationError(
                f"The layer '{name}' of the teacher does not know how to draw new weights for '{parameter_name}', so "
                "an assistant cannot start from scratch. Let the assistants start from the teacher."
            )
        nn.init.trunc_normal_(parameter, std=0.02)


class FalsePixelAssistantStage(TrainingStage):
    """Train TA_f on synthetic images made of the pixels the teacher gets wrong, and on a share of real ones.

    Until the queues are full only they are filled ("only the former operation is performed during the initial
    training phase until the false pixel queues are filled"), and the loss is 0; afterwards both alternate:
    each batch first feeds the queues, then gives the shape of the synthetic images trained on.

    Decided here, as the paper is silent or its literal reading breaks down:

    - The frozen T feeds the queues, from the augmented batches: TransUNet makes few mistakes on what it has fitted.
    - A teacher may make too few mistakes to ever fill them, so the warm-up ends after ``warm_up_epochs``, and after
      half the epochs at the latest. From then on a queue that is empty is seeded with the least confident right pixels.
    - Half of each batch is real (``real_fraction``; the paper: none), since noise images alone would spoil TA_f for
      real ones. The two parts go through the network separately, and the running statistics of batch normalisation
      come from the real part only. With ``real_fraction = 0`` they come from the synthetic images, as printed.

    Parameters
    ----------
    teacher
        Frozen T.
    network
        TA_f, to be trained.
    settings
        Constants.
    seed
        Of the random choices.
    sample_masks
        Source of ground-truth masks from the training set; ``None`` takes them from the last batches seen.
    """

    input_of: int | None = 0

    def __init__(
        self,
        teacher: nn.Module,
        network: nn.Module,
        settings: PlcKdSettings,
        *,
        seed: int = 0,
        sample_masks: SampleMasks | None = None,
    ) -> None:
        super().__init__(
            "false_pixel_assistant",
            "False-pixel-aware assistant",
            network,
            settings,
            epochs_factor=settings.assistant_epochs_factor,
            learning_rate_factor=settings.assistant_learning_rate_factor,
        )
        self.settings = settings
        self.teacher = teacher
        self.queues: FalsePixelQueues | None = None
        self.masks = TrainingMasks(sample_masks, ignore_index=IGNORE_INDEX)
        self._generator = random_generator(seed, self.name)
        self._warm_up_epochs = settings.warm_up_epochs
        self._warm = False

    def begin_epoch(self, epoch: int, epochs: int | None = None) -> None:
        """Begin an epoch; after ``warm_up_epochs``, or half of ``epochs``, training starts even with short queues."""
        super().begin_epoch(epoch, epochs)
        if epochs is not None:
            self._warm_up_epochs = min(self.settings.warm_up_epochs, epochs // 2)

    def image_networks(self) -> list[nn.Module]:
        """Return teacher and assistant."""
        return [self.teacher, self.network]

    @property
    def warming_up(self) -> bool:
        """Whether the queues are still being filled and nothing is trained."""
        return not self._warm

    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Feed the queues; after the warm-up return L_F as ``synthetic`` and ``real``, and their mean as ``loss``."""
        probabilities = self._fill_queues(image, target)
        if self.warming_up:
            return {"loss": self._nothing()}
        self._seed_empty_queues(image, target, probabilities)
        return self._training_loss(image, target)

    def _fill_queues(self, image: Tensor, target: Tensor) -> Tensor:
        """Push what T gets wrong in this batch, and return T's probabilities."""
        with torch.no_grad():
            probabilities = run_frozen("teacher", self.teacher, image)[LOGITS].float().softmax(dim=1)
        if self.queues is None:
            self.queues = FalsePixelQueues(probabilities.shape[1], image.shape[1], self.settings.queue_length)
        self.queues.to(image.device)
        self.queues.push(
            image, target, probabilities.argmax(dim=1), self.settings.pixels_per_image, self._generator
        )
        self.masks.remember(target)
        # Once warm, always warm: full queues stay full, and the cap is passed for good.
        self._warm = self._warm or self.queues.full or self.epoch >= self._warm_up_epochs
        return probabilities

    def _seed_empty_queues(self, image: Tensor, target: Tensor, probabilities: Tensor) -> None:
        assert self.queues is not None
        if 0 not in self.queues.sizes:
            return
        for c in self.queues.seed_least_confident(
            image, target, probabilities, self.settings.pixels_per_image
        ):
            logger.warning(
                "The teacher made no mistake in class %d; the least confident right pixels stand in for false ones.",
                c,
            )

    def _training_loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        count = len(image)
        assert self.queues is not None
        masks = self.masks.draw(count - self._count_real(count), target.shape[-2:], self._generator)
        if not any(self.queues.sizes):
            masks = None
        synthetic = 0 if masks is None else len(masks)
        real = count - synthetic if self.settings.real_fraction > 0 else 0
        values, parts = {}, []
        if masks is not None:
            made, labels = false_pixel_images(self.queues, masks.to(image.device), self._generator)
            quiet = (
                _keep_running_statistics(self.network) if self.settings.real_fraction > 0 else nullcontext()
            )
            with quiet:
                values["synthetic"] = self.segmentation(self.network(made.to(image.dtype)), labels)
            parts.append(values["synthetic"] * (synthetic / count))
        if real:
            values["real"] = self.segmentation(self.network(image[:real]), target[:real])
            parts.append(values["real"] * (real / count))
        self._sums["images/synthetic"] += synthetic
        self._sums["images/real"] += real
        return {**values, "loss": torch.stack(parts).sum() if parts else self._nothing()}

    def _count_real(self, count: int) -> int:
        """Images of the batch that stay real; rounded at random, so that the fraction holds on average."""
        return math.floor(
            self.settings.real_fraction * count + float(torch.rand((), generator=self._generator))
        )

    def _nothing(self) -> Tensor:
        """Zero, attached to every parameter: a step from it changes nothing, on one device or many."""
        return torch.stack([parameter.sum() * 0.0 for parameter in self.trainable_parameters()]).sum()

    def report(self) -> dict[str, float]:
        """Return images trained on since the epoch began, and how full each queue is (0 to 1)."""
        fill = {}
        if self.queues is not None:
            fill = {f"queue/{c}": size / self.queues.length for c, size in enumerate(self.queues.sizes)}
        return {**super().report(), **fill, "warming_up": float(self.warming_up)}

    def to(self, device: torch.device | str) -> Self:
        """Move teacher, assistant and queues to ``device``, in place."""
        self.teacher.to(device)
        if self.queues is not None:
            self.queues.to(device)
        return super().to(device)

    def state_dict(self) -> dict[str, Any]:
        """Return queues, remembered masks, random generator and warm-up."""
        return {
            **super().state_dict(),
            "queues": None if self.queues is None else self.queues.state_dict(),
            "masks": [mask.clone() for mask in self.masks.remembered],
            "generator": self._generator.get_state(),
            "warm": self._warm,
            "warm_up_epochs": self._warm_up_epochs,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        super().load_state_dict(state)
        self.queues = None
        if state["queues"] is not None:
            classes, _, channels = state["queues"]["values"].shape
            self.queues = FalsePixelQueues(classes, channels, self.settings.queue_length)
            self.queues.load_state_dict(state["queues"])
        self.masks.remembered = [mask.clone() for mask in state["masks"]]
        self._generator.set_state(state["generator"].cpu())
        self._warm = bool(state["warm"])
        self._warm_up_epochs = int(state["warm_up_epochs"])


class BoundaryAssistantStage(TrainingStage):
    """Train TA_b on boundary-transformed images X' with the true labels: loss L_B.

    ``boundary_real_fraction`` of each batch stays as it is (default and paper: none); both go through the
    network in one batch, as X' has nearly the statistics of X.

    Parameters
    ----------
    network
        TA_b, to be trained.
    settings
        Constants.
    seed
        Of the random choices.
    """

    input_of: int | None = 0

    def __init__(self, network: nn.Module, settings: PlcKdSettings, *, seed: int = 0) -> None:
        super().__init__(
            "boundary_assistant",
            "Boundary-aware assistant",
            network,
            settings,
            epochs_factor=settings.assistant_epochs_factor,
            learning_rate_factor=settings.assistant_learning_rate_factor,
        )
        self.settings = settings
        self._generator = random_generator(seed, self.name)

    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return L_B as ``segmentation`` and ``loss``."""
        share = self.settings.boundary_real_fraction * len(image)
        real = math.floor(share + float(torch.rand((), generator=self._generator)))
        transformed = boundary_transform(
            image[real:],
            target[real:],
            width=self.settings.boundary_width,
            fraction=self.settings.swap_fraction,
            start=self.settings.boundary_start,
            generator=self._generator,
            ignore_index=IGNORE_INDEX,
        )
        changed = int((transformed != image[real:]).flatten(1).any(dim=1).sum())
        self._sums["images/transformed"] += changed
        self._sums["images/unchanged"] += len(image) - changed
        value = self.segmentation(self.network(torch.cat([image[:real], transformed])), target)
        return {"segmentation": value, "loss": value}

    def state_dict(self) -> dict[str, Any]:
        """Return the random generator."""
        return {**super().state_dict(), "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        super().load_state_dict(state)
        self._generator.set_state(state["generator"].cpu())


@contextmanager
def _keep_running_statistics(network: nn.Module) -> Iterator[None]:
    """Let batch normalisation use the statistics of a batch without remembering them."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
