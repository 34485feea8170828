"""The teacher team corrects a soft label step by step: T -> TA_f -> TA_b -> SC, giving the "all-correct" map P^U.

PLC-KD, Wang et al., MICCAI 2024, sect. 2.1, stage 2. Each member sees the original image; the steps are kept
side by side in a :class:`Correction` so that they can be counted and looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_kdseg.distillation.correction.similarity import ClassMeans, similarity_correction
from napari_kdseg.distillation.declarations import LOGITS, segments
from napari_kdseg.distillation.losses.common import at_size
from napari_kdseg.distillation.settings import PlcKdSettings
from napari_kdseg.errors import ConfigurationError, DataError
from napari_kdseg.networks import capture, last_feature

if TYPE_CHECKING:
    from napari_kdseg.distillation.declarations import RunFrozen

IGNORED = 255
STEPS = ("false_pixel_assistant", "boundary_assistant", "similarity", "fallback")
STILL_WRONG = 5


@dataclass(frozen=True)
class CorrectionCounts:
    """How many pixels each step of a correction left wrong and mended.

    Attributes
    ----------
    labelled
        Pixels that are labelled.
    wrong
        Pixels wrong in ``initial``, ``false_pixel``, ``boundary`` and ``ultimate``.
    mended
        For each of :data:`STEPS` (codes 1 to 4) the pixels it mended, by true class.
    """

    labelled: int
    wrong: tuple[int, int, int, int]
    mended: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Correction:
    """A soft label before and after each step. Steps that were left out hold the tensor of the step before.

    Attributes
    ----------
    initial, false_pixel, boundary, ultimate
        Probabilities ``[N, C, H, W]`` float32: P^I, P^F, P^B, P^U.
    mended_by
        ``[N, H, W]`` uint8, the step that mended the pixel last: 0 right from the start, 1 false-pixel-aware
        assistant, 2 boundary-aware assistant, 3 a similar right pixel, 4 no similar pixel (fallback), 255
        ignored. With the similarity correction switched off, 5 marks what is still wrong.
    target
        ``[N, H, W]`` int64 true classes.
    logits
        ``[N, C, H, W]``, what the teacher put out.
    """

    initial: Tensor
    false_pixel: Tensor
    boundary: Tensor
    ultimate: Tensor
    mended_by: Tensor
    target: Tensor
    logits: Tensor

    def counts(self) -> CorrectionCounts:
        """Count the pixels wrong after each step, and those mended by each, by true class."""
        maps = (self.initial, self.false_pixel, self.boundary, self.ultimate)
        wrong = torch.stack([_wrong(p, self.target).sum() for p in maps]).tolist()
        classes = self.initial.shape[1]
        labelled = self.target != IGNORED
        mended = {}
        for code, step in enumerate(STEPS, start=1):
            classes_mended = self.target[labelled & (self.mended_by == code)]
            mended[step] = tuple(torch.bincount(classes_mended, minlength=classes).tolist())
        return CorrectionCounts(int(labelled.sum()), tuple(wrong), mended)


def run_frozen(name: str, network: nn.Module, image: Tensor, layers: Sequence[str] = ()) -> dict[str, Tensor]:  # noqa: ARG001
    """Run a frozen network: its logits at the image's size under :data:`LOGITS`, and what ``layers`` put out.

    Of an encoder, which has no logits, there is only the latter.
    """
    with capture(network.eval(), layers) as seen:
        output = network(image)
    return {LOGITS: at_size(output, image.shape[-2:]), **seen} if segments(network) else dict(seen)


class TeacherTeam:
    """A frozen teacher and its assistants, who correct the teacher's soft labels where the ground truth is known.

    Parameters
    ----------
    teacher
        T: ``[N, D, H, W]`` normalised image -> logits ``[N, C, H, W]``.
    false_pixel_assistant, boundary_assistant
        TA_f and TA_b, of the same form; ``None``, or the switch in ``settings``, leaves the step out.
    settings
        Rule, similarity and switches.
    feature_path
        Dotted path in the teacher of the feature that pixels are compared by; ``None`` finds the one before
        its classifier.

    Raises
    ------
    ConfigurationError
        If no feature of the teacher can be found and ``settings.similarity`` asks for one.

    Notes
    -----
    The paper never says how an assistant's map replaces the current one. ``settings.rule``:

    ``replace_if_right`` (default)
        at pixels still wrong that the assistant gets right. Only this rule leaves "the remaining hard false
        pixels" to SC while keeping the teacher's "reasonable confidence" elsewhere; the set of wrong pixels
        can only shrink.
    ``replace_if_wrong``
        at pixels still wrong, whatever the assistant says.
    ``mean``
        P^F = (P^I + P_f) / 2 and P^B = (P^I + P_f + P_b) / 3 at every pixel. Wrong pixels may become more.

    Nor does it name the feature that SC compares. ``settings.similarity``: ``feature`` is T's last decoder
    feature, ``rgb`` the input minus its mean over each image (the direction of a raw colour says mostly how
    bright it is not), ``prob`` the soft label P^B itself.

    The members are set to eval mode before each use and run without gradient, whatever was done to them in
    between.
    """

    def __init__(
        self,
        teacher: nn.Module,
        false_pixel_assistant: nn.Module | None,
        boundary_assistant: nn.Module | None,
        settings: PlcKdSettings,
        feature_path: str | None = None,
    ) -> None:
        self.teacher = teacher
        self.false_pixel_assistant = false_pixel_assistant if settings.use_false_pixel_assistant else None
        self.boundary_assistant = boundary_assistant if settings.use_boundary_assistant else None
        self.settings = settings
        self.feature_path: str | None = None
        if settings.use_similarity and settings.similarity == "feature":
            self.feature_path = feature_path if feature_path is not None else last_feature(teacher)
        self._class_means: ClassMeans | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers of the teacher that are read beside its logits."""
        return () if self.feature_path is None else (self.feature_path,)

    @property
    def members(self) -> list[nn.Module]:
        """The teacher and those assistants that are used."""
        members = (self.teacher, self.false_pixel_assistant, self.boundary_assistant)
        return [member for member in members if member is not None]

    @torch.no_grad()
    def correct(
        self,
        image: Tensor,
        target: Tensor,
        teacher_output: Mapping[str, Tensor] | None = None,
        run_frozen: RunFrozen = run_frozen,
    ) -> Correction:
        """Correct the teacher's soft label of a batch.

        Parameters
        ----------
        image
            ``[N, D, H, W]`` normalised network input.
        target
            ``[N, H, W]`` integer classes, 255 = not annotated.
        teacher_output
            What ``run_frozen`` returned of the teacher for :attr:`layers`, where it was run already.
        run_frozen
            How a frozen network is run.

        Returns
        -------
        Correction
            With the similarity correction on, the arg max of ``ultimate`` equals ``target`` at every labelled
            pixel. Under a ``replace`` rule, pixels the teacher had right are bit-identical in all four maps.

        Raises
        ------
        DataError
            If the labels and the teacher's output do not belong together.
        ConfigurationError
            If a member of the team answers in another shape than the teacher.
        """
        target = target.long()
        if teacher_output is None:
            teacher_output = run_frozen("teacher", self.teacher, image, self.layers)
        logits = teacher_output[LOGITS]
        initial = _probabilities(logits)
        _check(initial, target)
        answers = [initial]
        false_pixel = initial
        if self.false_pixel_assistant is not None:
            answers.append(
                _answer(run_frozen, "false_pixel_assistant", self.false_pixel_assistant, image, initial.shape)
            )
            false_pixel = self._revise(initial, answers, target, torch.ones_like(target, dtype=torch.bool))
        boundary = false_pixel
        if self.boundary_assistant is not None:
            answers.append(
                _answer(run_frozen, "boundary_assistant", self.boundary_assistant, image, initial.shape)
            )
            boundary = self._revise(false_pixel, answers, target, self._reach_of_boundary_assistant(target))
        ultimate, codes = boundary, torch.zeros_like(target, dtype=torch.uint8)
        if self.settings.use_similarity:
            vectors = self._similarity_vectors(image, teacher_output, boundary)
            ultimate, codes = self._force(boundary, target, vectors)
        mended_by = _mended_by(initial, false_pixel, boundary, ultimate, codes, target)
        return Correction(initial, false_pixel, boundary, ultimate, mended_by, target, logits)

    def _revise(self, current: Tensor, answers: list[Tensor], target: Tensor, reach: Tensor) -> Tensor:
        """Let the last of ``answers`` correct the current map within ``reach``, by the rule in the settings."""
        answer = answers[-1]
        if self.settings.rule == "mean":
            return torch.where(reach[:, None], torch.stack(answers).mean(dim=0), current)
        replaced = _wrong(current, target) & reach
        if self.settings.rule == "replace_if_right":
            replaced &= ~_wrong(answer, target)
        return torch.where(replaced[:, None], answer, current)

    def _reach_of_boundary_assistant(self, target: Tensor) -> Tensor:
        """Pixels with another class within ``boundary_only`` pixels (a square), or all pixels without that limit."""
        width = self.settings.boundary_only
        if width is None:
            return torch.ones_like(target, dtype=torch.bool)
        labels = target[:, None].float()
        ignored = labels == IGNORED
        largest = _largest_within(labels.masked_fill(ignored, -torch.inf), width)
        smallest = -_largest_within(-labels.masked_fill(ignored, torch.inf), width)
        return (largest > smallest)[:, 0]

    def _similarity_vectors(
        self, image: Tensor, teacher_output: Mapping[str, Tensor], soft_label: Tensor
    ) -> Tensor:
        match self.settings.similarity:
            case "rgb":
                return image.float() - image.float().mean(dim=(2, 3), keepdim=True)
            case "prob":
                return soft_label
        assert self.feature_path is not None  # found in __init__
        feature = teacher_output[self.feature_path]
        if feature.ndim != 4:
            raise ConfigurationError(
                f"The teacher's feature {self.feature_path!r} has the shape {tuple(feature.shape)}, which is no map of "
                "pixels. Choose similarity 'rgb' or 'prob', or name another layer."
            )
        return feature

    def _force(self, soft_label: Tensor, target: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        if self._class_means is None:
            self._class_means = ClassMeans(soft_label.shape[1], self.settings.class_mean_momentum)
        return similarity_correction(
            soft_label, target, vectors, chunk=self.settings.bank_chunk, class_means=self._class_means
        )

    def to(self, device: torch.device | str) -> TeacherTeam:
        """Move the members to ``device``, in place."""
        for member in self.members:
            member.to(device)
        return self

    def state_dict(self) -> dict[str, Any]:
        """Return the running class means; the members' weights are kept in their own checkpoints."""
        return {"class_means": None if self._class_means is None else self._class_means.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        means = state["class_means"]
        self._class_means = None
        if means is not None:
            self._class_means = ClassMeans(len(means["seen"]), self.settings.class_mean_momentum)
            self._class_means.load_state_dict(means)


def _probabilities(logits: Tensor) -> Tensor:
    return logits.float().softmax(dim=1)


def _answer(
    run_frozen: RunFrozen, name: str, assistant: nn.Module, image: Tensor, shape: torch.Size
) -> Tensor:
    answer = _probabilities(run_frozen(name, assistant, image, ())[LOGITS])
    if answer.shape != shape:
        raise ConfigurationError(
            f"An assistant answers in the shape {tuple(answer.shape)} but the teacher in {tuple(shape)}. "
            "Assistants must have the teacher's architecture and classes."
        )
    return answer


def _largest_within(values: Tensor, width: int) -> Tensor:
    """Maximum over the square of ``2 width + 1`` pixels around each pixel, ``[N, 1, H, W]``."""
    columns = F.max_pool2d(values, (2 * width + 1, 1), stride=1, padding=(width, 0))
    return F.max_pool2d(columns, (1, 2 * width + 1), stride=1, padding=(0, width))


def _wrong(probabilities: Tensor, target: Tensor) -> Tensor:
    """Labelled pixels whose arg max is not the target; the first of equal entries counts as the arg max."""
    # .max, not argmax: twenty times faster along the classes of a map, and called for every soft label
    return (target != IGNORED) & (probabilities.max(dim=1).indices != target)


def _mended_by(
    initial: Tensor, false_pixel: Tensor, boundary: Tensor, ultimate: Tensor, codes: Tensor, target: Tensor
) -> Tensor:
    """Name for each pixel the step that made it right last."""
    mended_by = torch.zeros_like(codes)
    before = _wrong(initial, target)
    for code, soft_label in ((1, false_pixel), (2, boundary)):
        after = _wrong(soft_label, target)
        mended_by[before & ~after] = code
        before = after
    mended_by = torch.where(codes > 0, codes, mended_by)
    mended_by[_wrong(ultimate, target)] = STILL_WRONG
    mended_by[target == IGNORED] = IGNORED
    return mended_by


def _check(initial: Tensor, target: Tensor) -> None:
    if initial.shape[:1] + initial.shape[2:] != target.shape:
        raise DataError(
            f"The teacher's output has the shape {tuple(initial.shape)} but the labels {tuple(target.shape)}. "
            "Image and mask must have the same size."
        )
    strange = target[(target != IGNORED) & ((target < 0) | (target >= initial.shape[1]))]
    if len(strange):
        raise DataError(
            f"The mask holds the label {int(strange[0])}, but the teacher knows only 0 to {initial.shape[1] - 1}. "
            "Correct the mask (255 marks pixels that are not annotated) or choose a teacher for these classes."
        )
