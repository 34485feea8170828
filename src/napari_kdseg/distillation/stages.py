"""Stages that train one network: what all have in common, and the student's.

The student's loss is eq. 1 of PLC-KD (Wang et al., MICCAI 2024), and of nearly every other method: the
segmentation loss plus a weighted sum of distillation terms.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from napari_kdseg.distillation.correction.teacher_team import CorrectionCounts, TeacherTeam
from napari_kdseg.distillation.distiller import LOGITS, SOFT_LABELS, Term
from napari_kdseg.distillation.losses.segmentation import cross_entropy_dice
from napari_kdseg.distillation.settings import AloneSettings
from napari_kdseg.errors import ConfigurationError
from napari_kdseg.networks import capture

IGNORE_INDEX = 255


def freeze(network: nn.Module) -> nn.Module:
    """Put a network in eval mode and take its parameters out of training, in place."""
    return network.eval().requires_grad_(False)


def random_generator(seed: int, name: str) -> torch.Generator:
    """Return a CPU generator of its own for each stage, so that all devices draw the same."""
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))


class TrainingStage:
    """What every stage has: a network, the segmentation loss, and sums that are reported for each epoch.

    Parameters
    ----------
    name, title
        Key in files, and words for people.
    network
        What is trained.
    settings
        Weights of the segmentation loss.
    epochs_factor, learning_rate_factor
        Relative to the student's.
    """

    def __init__(
        self,
        name: str,
        title: str,
        network: nn.Module,
        settings: AloneSettings,
        *,
        epochs_factor: float = 1.0,
        learning_rate_factor: float = 1.0,
    ) -> None:
        self.name = name
        self.title = title
        self.network = network
        self.epochs_factor = epochs_factor
        self.learning_rate_factor = learning_rate_factor
        self.epoch = 0
        self._settings = settings
        self._sums: Counter[str] = Counter()

    def segmentation(self, logits: Tensor, target: Tensor) -> Tensor:
        """L_seg with the weights of the settings."""
        return cross_entropy_dice(
            logits,
            target,
            ignore_index=IGNORE_INDEX,
            cross_entropy_weight=self._settings.cross_entropy_weight,
            dice_weight=self._settings.dice_weight,
        )

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return the parameters an optimiser must step."""
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def begin_epoch(self, epoch: int, epochs: int | None = None) -> None:  # noqa: ARG002
        """Begin epoch ``epoch`` (from 0) of ``epochs``: sums start anew."""
        self.epoch = epoch
        self._sums.clear()

    def report(self) -> dict[str, float]:
        """Return the sums since the epoch began."""
        return {key: float(value) for key, value in self._sums.items()}

    def to(self, device: torch.device | str) -> Self:
        """Move the network to ``device``, in place."""
        self.network.to(device)
        return self

    def state_dict(self) -> dict[str, Any]:
        """Return epoch and sums."""
        return {"epoch": self.epoch, "sums": dict(self._sums)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned; sums of an epoch that is over are dropped."""
        if int(state["epoch"]) >= self.epoch:
            self.epoch = int(state["epoch"])
            self._sums = Counter(state["sums"])


class StudentStage(TrainingStage):
    """Train the student on the segmentation loss and any number of distillation terms.

    Parameters
    ----------
    student
        Network to train.
    settings
        Weights of the segmentation loss.
    terms
        Distillation losses; none for training without a teacher.
    teacher
        Frozen network the terms' teacher taps are read from.
    team
        Teacher team, needed by terms that read the corrected soft labels; its teacher must be ``teacher``.
    input_shape
        ``(D, H, W)`` of an image, to find the shapes of tapped features with.

    Raises
    ------
    ConfigurationError
        If a term reads a layer that does not exist, or a teacher or team that is not there.
    """

    def __init__(
        self,
        student: nn.Module,
        settings: AloneSettings,
        terms: Sequence[Term] = (),
        *,
        teacher: nn.Module | None = None,
        team: TeacherTeam | None = None,
        input_shape: tuple[int, int, int] = (3, 64, 64),
    ) -> None:
        super().__init__("student", "Student", student, settings)
        self.terms = tuple(terms)
        self.teacher = teacher
        self.team = team
        self._student_taps = sorted({tap for term in self.terms for tap in term.student_taps} - {LOGITS})
        self._teacher_taps = {tap for term in self.terms for tap in term.teacher_taps}
        if self._teacher_taps and teacher is None:
            raise ConfigurationError(
                "A distillation term reads the teacher, but there is none. Choose a teacher."
            )
        if SOFT_LABELS in self._teacher_taps and team is None:
            raise ConfigurationError(
                "A distillation term reads corrected soft labels, but there is no teacher team."
            )
        self.connectors = self._build_connectors(input_shape)

    def _build_connectors(self, input_shape: tuple[int, int, int]) -> nn.ModuleDict:
        """Pass one blank image through both networks, and let each term build a connector for the shapes it sees."""
        connectors = nn.ModuleDict()
        if not any(term.connector for term in self.terms):
            return connectors
        some = next(self.network.parameters())
        image = torch.zeros(1, *input_shape, device=some.device)
        target = torch.full((1, *input_shape[1:]), IGNORE_INDEX, device=some.device)
        self.network.eval()  # a blank image must not enter running statistics
        with torch.no_grad():
            seen_by_student = self._read_student(image)
        self.network.train()
        seen_by_teacher = self._read_teacher(image, target)
        for term in self.terms:
            if term.connector is not None:
                student_shapes = [seen_by_student[tap].shape for tap in term.student_taps]
                teacher_shapes = [seen_by_teacher[tap].shape for tap in term.teacher_taps]
                connectors[term.name] = term.connector(student_shapes, teacher_shapes).to(some.device)
        return connectors

    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return ``segmentation`` and each term raw, and ``loss``, their weighted sum.

        Parameters
        ----------
        image
            ``[N, D, H, W]`` normalised batch.
        target
            ``[N, H, W]`` int64, 255 = ignored.
        """
        by_teacher = self._read_teacher(image, target)
        by_student = self._read_student(image)
        values = {"segmentation": self.segmentation(by_student[LOGITS], target)}
        total = values["segmentation"]
        for term in self.terms:
            student = tuple(by_student[tap] for tap in term.student_taps)
            if term.name in self.connectors:
                student = _as_tuple(self.connectors[term.name](*student))
            teacher = tuple(by_teacher[tap] for tap in term.teacher_taps)
            value = term.loss(_one_or_all(student), _one_or_all(teacher), target, ignore_index=IGNORE_INDEX)
            values[term.name] = value
            total = total + term.weight * term.schedule(self.epoch) * value
        values["loss"] = total
        return values

    def _read_student(self, image: Tensor) -> dict[str, Tensor]:
        with capture(self.network, self._student_taps) as seen:
            logits = self.network(image)
        return {LOGITS: logits, **seen}

    @torch.no_grad()
    def _read_teacher(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Run the teacher, or the team it is in, once, and return what the terms read of it."""
        if self.teacher is None or not self._teacher_taps:
            return {}
        self.teacher.eval()
        modules = sorted(self._teacher_taps - {LOGITS, SOFT_LABELS})
        with capture(self.teacher, modules) as seen:
            if SOFT_LABELS not in self._teacher_taps:
                return {LOGITS: self.teacher(image), **seen}
            assert self.team is not None  # checked in __init__
            correction = self.team.correct(image, target)
        self._tally(correction.counts())
        return {LOGITS: correction.logits, SOFT_LABELS: correction.ultimate, **seen}

    def _tally(self, counts: CorrectionCounts) -> None:
        self._sums["labelled"] += counts.labelled
        self._sums["wrong/teacher"] += counts.wrong[0]
        self._sums["wrong/corrected"] += counts.wrong[-1]
        for step, by_class in counts.mended.items():
            self._sums[f"mended/{step}"] += sum(by_class)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return the student's parameters and the connectors'."""
        return super().trainable_parameters() + list(self.connectors.parameters())

    def begin_epoch(self, epoch: int, epochs: int | None = None) -> None:
        """Begin an epoch; connectors train with the student."""
        super().begin_epoch(epoch, epochs)
        self.connectors.train()

    def to(self, device: torch.device | str) -> Self:
        """Move student, teacher, team and connectors to ``device``, in place."""
        for module in (self.teacher, self.connectors, self.team):
            if module is not None:
                module.to(device)
        return super().to(device)

    def state_dict(self) -> dict[str, Any]:
        """Return epoch, sums, connectors and the team's running means. The teacher is never in it."""
        state = {**super().state_dict(), "connectors": self.connectors.state_dict()}
        return state if self.team is None else {**state, "team": self.team.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        super().load_state_dict(state)
        self.connectors.load_state_dict(state["connectors"])
        if self.team is not None:
            self.team.load_state_dict(state["team"])


def _one_or_all(tensors: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    return tensors[0] if len(tensors) == 1 else tensors


def _as_tuple(value: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)
