"""What a distillation is declared with: taps, terms, recipes, and what a stage of training is.

Nothing here runs anything, and nothing imports torch: :mod:`~napari_kdseg.distillation.stages` builds what is declared,
and :class:`~napari_kdseg.distillation.distiller.Method` puts a published method together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    SampleMasks = Callable[[int, torch.Generator], Tensor]
    RunFrozen = Callable[[str, nn.Module, Tensor, Sequence[str]], dict[str, Tensor]]
    """``run_frozen(name, network, image, layers)``: runs a frozen network; its logits and what the layers put out."""
    Connector = Callable[[Sequence[torch.Size], Sequence[torch.Size]], nn.Module]
    Learned = Callable[[Sequence[torch.Size], Sequence[torch.Size], torch.Generator], nn.Module]

LOGITS = "logits"
SOFT_LABELS = "soft labels"
IMAGE = "image"

LABELS = "segmentation"
"""Name of the labels' part of a loss."""
WEIGHTED = "weighted/"
"""Begins the name of what a part contributes to a loss."""


def always(epoch: int) -> float:  # noqa: ARG001
    """Return the schedule of a term that has its full weight from the first epoch on."""
    return 1.0


@dataclass(frozen=True)
class Term:
    """One distillation loss of the student: what it compares, and how much it counts.

    Attributes
    ----------
    name
        Key of the raw value in what :meth:`Stage.loss` returns.
    loss
        ``loss(student, teacher, target, ignore_index=255) -> scalar``. ``student`` and ``teacher`` are a
        tensor each, or a tuple of tensors where several taps are named. ``None`` where there is ``learned``.
    student_taps
        What the loss reads of the student: :data:`LOGITS`, :data:`IMAGE`, dotted paths of modules whose output is
        wanted, or names such as ``"@deep"``, for which each network has its own layer
        (:func:`~napari_kdseg.networks.find_taps`).
    teacher_taps
        The same of the teacher; also :data:`SOFT_LABELS`, the teacher team's corrected probabilities.
    weight
        Factor of the term in the sum.
    connector
        ``connector(student_shapes, teacher_shapes) -> module``, given the shapes ``[1, c, h, w]`` of all
        taps: builds the module that brings the student's taps into the teacher's form, called with them and
        trained with the student.
    schedule
        ``schedule(epoch) -> factor`` on top of ``weight``, e.g. a warm-up.
    learned
        ``learned(student_shapes, teacher_shapes, generator) -> module``: builds a loss that learns or remembers, a
        module called as ``loss`` would be. Its parameters are trained with the student, unless it has
        ``own_optimiser = True``: then it steps itself in ``after_step(epoch, epochs)``, called after each step of
        the student.
    team
        The :class:`~napari_kdseg.distillation.TeacherTeam`, where :data:`SOFT_LABELS` are read.
    teacher
        Which of several teachers is read, from 0.
    """

    name: str
    loss: Callable[..., Tensor] | None
    student_taps: tuple[str, ...] = (LOGITS,)
    teacher_taps: tuple[str, ...] = (LOGITS,)
    weight: float = 1.0
    connector: Connector | None = None
    schedule: Callable[[int], float] = always
    learned: Learned | None = None
    team: object | None = None
    teacher: int = 0


@dataclass(frozen=True)
class Recipe:
    """What a method makes for one teacher and one student.

    Attributes
    ----------
    terms
        Losses of the student.
    before
        Stages that are trained before the student.
    """

    terms: Sequence[Term] = ()
    before: Sequence[Stage] = ()

    def __add__(self, other: Recipe) -> Recipe:
        """Return both together; terms, and stages, of the same name are told apart by a number."""
        taken = {term.name for term in self.terms}
        terms = [replace(term, name=_free_name(term.name, taken)) for term in other.terms]
        taken = {stage.name for stage in self.before}
        for stage in other.before:
            stage.name = _free_name(stage.name, taken)
        return Recipe([*self.terms, *terms], [*self.before, *other.before])

    def of_teacher(self, number: int) -> Recipe:
        """Let terms, and stages that take a teacher's input, be those of teacher ``number``."""
        for stage in self.before:
            if stage.input_of is not None:
                stage.input_of = number
        return Recipe([replace(term, teacher=number) for term in self.terms], self.before)


def _free_name(name: str, taken: set[str]) -> str:
    free = next(free for free in (name, *(f"{name}_{n}" for n in range(2, 99))) if free not in taken)
    taken.add(free)
    return free


class Stage(Protocol):
    """One network being trained, from the first epoch to its checkpoint.

    The loop that runs a stage sets ``network.train()``, calls :meth:`begin_epoch` before each epoch, steps an
    optimiser over :meth:`trainable_parameters` on ``loss(...)["loss"]``, and keeps :meth:`state_dict` beside the
    network's weights; a resumed run calls :meth:`load_state_dict` after :meth:`begin_epoch`. ``network`` may be
    replaced by a wrapper (of ``torch.compile``) before the first step. Where several processes train together,
    each calls :meth:`loss` with the whole batch, and only the :meth:`image_networks` are divided among them
    (:mod:`napari_kdseg.networks.parallel.sharing`).
    """

    name: str
    title: str
    network: nn.Module
    epochs_factor: float
    learning_rate_factor: float
    input_of: int | None
    """Number of the teacher as whose input its batches are prepared; ``None``: as the student's."""
    segments: bool
    """Whether ``network`` segments images; otherwise (paraphraser, critic) it is judged by its own loss."""
    judged_by_score: bool
    """Whether the weights of its best epoch on validation are kept, and it may stop early; else those of its last.

    An assistant is there to be right where the teacher is wrong. Its own score is best while it still is a copy of the
    teacher, so choosing by score would undo its training. A stage that does not say so is not judged by score.
    """

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return the parameters an optimiser must step: the network's, and those of connectors."""
        ...

    def image_networks(self) -> list[nn.Module]:
        """Return the networks, trained or frozen, that take a batch of images: those that processes may share."""
        ...

    def begin_epoch(self, epoch: int, epochs: int | None = None) -> None:
        """Tell the stage that epoch ``epoch`` (from 0) of ``epochs`` begins."""
        ...

    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the raw value of each part, and under ``"loss"`` the weighted sum to go backward from.

        ``image`` is a normalised float batch ``[N, D, H, W]``, ``target`` int64 ``[N, H, W]`` with 255 for
        ignored. ``"weighted/<part>"`` is what a part contributes to the sum.
        """
        ...

    def after_step(self) -> dict[str, float]:
        """Do what follows the optimiser's step (a critic takes its own); return figures worth logging."""
        ...

    def report(self) -> dict[str, float]:
        """Return figures worth logging that are no losses, summed since the epoch began."""
        ...

    def to(self, device: torch.device | str) -> Stage:
        """Move everything the stage owns or reads to ``device``, in place."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all a resumed run needs but the network's weights; tensors and plain values only."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        ...


def segments(network: nn.Module) -> bool:
    """Whether a network puts out logits of classes; an encoder puts out features alone."""
    return bool(getattr(network, "segments", True))
