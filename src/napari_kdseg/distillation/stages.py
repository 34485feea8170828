"""Stages that train one network: what all have in common, and the student's.

The student's loss is eq. 1 of PLC-KD (Wang et al., MICCAI 2024), and of nearly every other method: the
segmentation loss plus a weighted sum of distillation terms.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from napari_kdseg.distillation.correction.teacher_team import CorrectionCounts, TeacherTeam
from napari_kdseg.distillation.declarations import IMAGE, LABELS, LOGITS, WEIGHTED, Term
from napari_kdseg.distillation.losses.common import at_size, labels_on_grid
from napari_kdseg.distillation.losses.segmentation import cross_entropy_dice
from napari_kdseg.distillation.reading import NO_LAYERS, TeacherReader
from napari_kdseg.distillation.settings import FOCUSING, AloneSettings
from napari_kdseg.distillation.view import View
from napari_kdseg.errors import ConfigurationError
from napari_kdseg.networks import capture, find_taps, tap_of
from napari_kdseg.networks.anatomy.named_layers import is_layer_name

IGNORE_INDEX = 255


def freeze(network: nn.Module) -> nn.Module:
    """Put a network in eval mode and take its parameters out of training, in place."""
    return network.eval().requires_grad_(False)


def random_generator(seed: int, name: str) -> torch.Generator:
    """Return a CPU generator of its own for each stage, so that all devices draw the same."""
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))


@contextmanager
def seeded(seed: int, name: str) -> Iterator[None]:
    """Draw initial weights from ``seed`` alone in this block, and leave the generator outside untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_generator(seed, name).initial_seed())
        yield


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

    segments = True
    judged_by_score = False
    input_of: int | None = None

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
        self.epochs = 1
        self._settings = settings
        self._sums: Counter[str] = Counter()

    def segmentation(self, logits: Tensor, target: Tensor) -> Tensor:
        """L_seg with the weights of the settings; logits of a coarser stride are brought to the size of the target."""
        return cross_entropy_dice(
            at_size(logits, target.shape[-2:]),
            target,
            ignore_index=IGNORE_INDEX,
            cross_entropy_weight=self._settings.cross_entropy_weight,
            dice_weight=self._settings.dice_weight,
            class_weights=self._settings.class_weights,
            focusing=FOCUSING[self._settings.segmentation_loss],
        )

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return the parameters an optimiser must step."""
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def image_networks(self) -> list[nn.Module]:
        """Return the networks that take a batch of images."""
        return [self.network]

    def begin_epoch(self, epoch: int, epochs: int | None = None) -> None:
        """Begin epoch ``epoch`` (from 0) of ``epochs``: sums start anew."""
        self.epoch = epoch
        self.epochs = max(epochs or 0, epoch + 1)
        self._sums.clear()

    def after_step(self) -> dict[str, float]:
        """Return figures of what follows the optimiser's step; here nothing does."""
        return {}

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
    teachers
        Frozen networks the terms' teacher taps are read from.
    views
        What turns a batch into the input of each teacher; none where it is theirs as it is.
    view
        What turns a batch into the student's input; ``None``: it is as it is.
    input_shape
        ``(D, H, W)`` of an image, to find layers and the shapes of their features with.
    seed
        Of what learned terms draw at random.

    Raises
    ------
    ConfigurationError
        If a term reads a layer that does not exist, or a teacher or team that is not there, or layers that do not fit
        together.
    """

    judged_by_score = True

    def __init__(
        self,
        student: nn.Module,
        settings: AloneSettings,
        terms: Sequence[Term] = (),
        *,
        teachers: Sequence[nn.Module] = (),
        views: Sequence[View] = (),
        view: View | None = None,
        input_shape: tuple[int, int, int] = (3, 64, 64),
        seed: int = 0,
    ) -> None:
        super().__init__("student", "Student", student, settings)
        self.view = view or View()
        self.terms = _with_layers(terms, student, teachers, input_shape)
        self._student_taps = {tap for term in self.terms for tap in term.student_taps}
        self.readers, self._reader_of = _readers(self.terms, teachers, views)
        self.connectors = nn.ModuleDict()
        self.learned = nn.ModuleDict()
        if any(term.connector or term.learned or self._taps_layers(term) for term in self.terms):
            self._dry_run(input_shape, seed)

    @staticmethod
    def _taps_layers(term: Term) -> bool:
        return bool({*term.student_taps, *term.teacher_taps} - NO_LAYERS)

    def _dry_run(self, input_shape: tuple[int, int, int], seed: int) -> None:
        """Pass one blank image through both networks, build what terms learn for the shapes seen, and try each term."""
        some = next(self.network.parameters())
        image = torch.zeros(1, *input_shape, device=some.device)
        target = torch.zeros((1, *input_shape[1:]), dtype=torch.long, device=some.device)
        self.network.eval()  # a blank image must not enter running statistics
        with torch.no_grad():
            by_student = self._read_student(self.view(image))
        self.network.train()
        by_teacher = [reader.read(image, torch.full_like(target, IGNORE_INDEX)) for reader in self.readers]
        for term, reader in zip(self.terms, self._reader_of, strict=True):
            student = [by_student[tap] for tap in term.student_taps]
            teacher = [by_teacher[reader][tap] for tap in term.teacher_taps]
            shapes = [tensor.shape for tensor in student], [tensor.shape for tensor in teacher]
            try:
                if term.connector is not None:
                    self.connectors[term.name] = term.connector(*shapes).to(some.device)
                    with torch.no_grad():
                        student = list(_as_tuple(self.connectors[term.name].eval()(*student)))
                if term.learned is not None:
                    made = term.learned(*shapes, random_generator(seed, term.name))
                    self.learned[term.name] = made.to(some.device)
                elif self._taps_layers(term):
                    loss = term.loss
                    assert loss is not None, f"the term {term.name} has neither loss nor learned"
                    with torch.no_grad():
                        loss(
                            _one_or_all(tuple(student)),
                            _one_or_all(tuple(teacher)),
                            target,
                            ignore_index=IGNORE_INDEX,
                        )
            except (ConfigurationError, RuntimeError, ValueError) as error:
                raise ConfigurationError(_misfit(term, *shapes, error)) from error

    def loss(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return ``segmentation`` and each term raw, ``weighted/<term>``, and ``loss``, the weighted sum.

        Parameters
        ----------
        image
            ``[N, D, H, W]`` batch with the student's normalisation, at the size of whichever network sees most.
        target
            ``[N, H, W]`` int64, 255 = ignored.
        """
        by_teacher = [reader.read(image, target) for reader in self.readers]
        for number, reader in enumerate(self.readers):
            if reader.counts is not None:
                self._tally(reader.counts, f"teacher_{number + 1}/" if number else "")
        seen = self.view(image)
        target = labels_on_grid(target, seen.shape[-2:])
        by_student = self._read_student(seen)
        values = {LABELS: self.segmentation(by_student[LOGITS], target)}
        total = values[LABELS]
        for term, reader_of in zip(self.terms, self._reader_of, strict=True):
            student = tuple(by_student[tap] for tap in term.student_taps)
            if term.name in self.connectors:
                student = _as_tuple(self.connectors[term.name](*student))
            teacher = tuple(by_teacher[reader_of][tap] for tap in term.teacher_taps)
            compare: Any = self.learned[term.name] if term.learned is not None else term.loss
            value = compare(_one_or_all(student), _one_or_all(teacher), target, ignore_index=IGNORE_INDEX)
            weighted = term.weight * term.schedule(self.epoch) * value
            values |= {term.name: value, f"{WEIGHTED}{term.name}": weighted}
            total = total + weighted
        values["loss"] = total
        return values

    def _read_student(self, image: Tensor) -> dict[str, Tensor]:
        with capture(self.network, sorted(self._student_taps - NO_LAYERS)) as seen:
            logits = self.network(image)
        return {IMAGE: image, LOGITS: at_size(logits, image.shape[-2:]), **seen}

    def _tally(self, counts: CorrectionCounts, of: str) -> None:
        self._sums[f"{of}labelled"] += counts.labelled
        self._sums[f"{of}wrong/teacher"] += counts.wrong[0]
        self._sums[f"{of}wrong/corrected"] += counts.wrong[-1]
        for step, by_class in counts.mended.items():
            self._sums[f"{of}mended/{step}"] += sum(by_class)

    def after_step(self) -> dict[str, float]:
        """Let learned terms with an optimiser of their own (critics) take their step."""
        figures: dict[str, float] = {}
        for name, module in self.learned.items():
            if getattr(module, "own_optimiser", False):
                made = cast(Any, module).after_step(self.epoch, self.epochs)
                figures |= {f"{name}/{key}": value for key, value in made.items()}
        return figures

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return the student's parameters and those of connectors and learned terms that train with it."""
        parts = [
            self.connectors,
            *(m for m in self.learned.values() if not getattr(m, "own_optimiser", False)),
        ]
        beside = [parameter for part in parts for parameter in part.parameters() if parameter.requires_grad]
        return super().trainable_parameters() + beside

    def image_networks(self) -> list[nn.Module]:
        """Return student, teachers and their assistants."""
        members = [
            member for reader in self.readers if reader.team is not None for member in reader.team.members
        ]
        return [
            self.network,
            *(reader.network for reader in self.readers if reader.network is not None),
            *members,
        ]

    def begin_epoch(self, epoch: int, epochs: int | None = None) -> None:
        """Begin an epoch; connectors and learned terms train with the student."""
        super().begin_epoch(epoch, epochs)
        self.connectors.train()
        self.learned.train()

    def to(self, device: torch.device | str) -> Self:
        """Move student, teachers, teams, connectors and learned terms to ``device``, in place."""
        beside: list[nn.Module | TeacherTeam | None] = [self.view, self.connectors, self.learned]
        beside += [part for reader in self.readers for part in (reader.network, reader.view, reader.team)]
        for module in beside:
            if module is not None:
                module.to(device)
        return super().to(device)

    def state_dict(self) -> dict[str, Any]:
        """Return epoch, sums, connectors, learned terms and the teams' running means. A teacher is never in it."""
        return {
            **super().state_dict(),
            "connectors": self.connectors.state_dict(),
            "learned": self.learned.state_dict(),
            "teams": [reader.team.state_dict() for reader in self.readers if reader.team is not None],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        super().load_state_dict(state)
        self.connectors.load_state_dict(state["connectors"])
        self.learned.load_state_dict(state["learned"])
        teams = [reader.team for reader in self.readers if reader.team is not None]
        for team, kept in zip(teams, state["teams"], strict=True):
            team.load_state_dict(kept)


def _readers(
    terms: Sequence[Term], teachers: Sequence[nn.Module], views: Sequence[View]
) -> tuple[list[TeacherReader], list[int]]:
    """Make one reader a team, and one for each teacher without; and say which of them each term reads."""
    groups: dict[tuple[int, int], list[Term]] = {}
    for term in sorted(
        terms, key=lambda term: term.team is None
    ):  # a teacher in a team needs no reader beside it
        with_team = [key for key in groups if key[0] == term.teacher]
        key = (term.teacher, id(term.team)) if term.team is not None or not with_team else with_team[0]
        groups.setdefault(key, []).append(term)
    readers: list[TeacherReader] = []
    of: dict[str, int] = {}
    for number, ((teacher, _), group) in enumerate(groups.items()):
        of |= {term.name: number for term in group}
        readers.append(
            TeacherReader(
                teachers[teacher] if teacher < len(teachers) else None,
                {tap for term in group for tap in term.teacher_taps},
                views[teacher] if teacher < len(views) else View(),
                cast(
                    "TeacherTeam | None", next((term.team for term in group if term.team is not None), None)
                ),
            )
        )
    return readers, [of[term.name] for term in terms]


def _with_layers(
    terms: Sequence[Term],
    student: nn.Module,
    teachers: Sequence[nn.Module],
    input_shape: tuple[int, int, int],
) -> tuple[Term, ...]:
    """Put the layers of each network in the place of names such as ``"@deep"``."""
    found: dict[int, dict[str, str]] = {}

    def layers(network: nn.Module | None, taps: tuple[str, ...]) -> tuple[str, ...]:
        if network is None or not any(map(is_layer_name, taps)):
            return taps
        if id(network) not in found:
            found[id(network)] = find_taps(network, input_shape)
        return tuple(tap_of(found[id(network)], tap) for tap in taps)

    return tuple(
        replace(
            term,
            student_taps=layers(student, term.student_taps),
            teacher_taps=layers(
                teachers[term.teacher] if term.teacher < len(teachers) else None, term.teacher_taps
            ),
        )
        for term in terms
    )


def _misfit(
    term: Term, student: Sequence[torch.Size], teacher: Sequence[torch.Size], error: Exception
) -> str:
    def listed(taps: Sequence[str], shapes: Sequence[torch.Size]) -> str:
        return ", ".join(f"{tap} {list(shape[1:])}" for tap, shape in zip(taps, shapes, strict=True))

    return (
        f"The term '{term.name}' cannot compare {listed(term.student_taps, student)} of the student with "
        f"{listed(term.teacher_taps, teacher)} of the teacher: {error} Choose other layers under Advanced."
    )


def _one_or_all(tensors: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    return tensors[0] if len(tensors) == 1 else tensors


def _as_tuple(value: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)
