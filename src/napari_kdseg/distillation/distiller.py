"""A published method: its constants, its variants, and the stages it builds from what it declares.

A method is declared, not programmed (after Keras ``keras.distillation`` and NVIDIA ModelOpt): a list of
losses, what each reads of student and teacher, and its weight. Nothing here imports torch, so that forms can
list the methods at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, TypeVar

from napari_kdseg.distillation.declarations import Recipe, Stage, segments
from napari_kdseg.distillation.settings import AloneSettings
from napari_kdseg.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import nn

    from napari_kdseg.distillation.declarations import SampleMasks
    from napari_kdseg.distillation.view import View


class MethodName(NamedTuple):
    """The name of one method as it is typed: ``base``, ``base:preset``, and either with ``@teacher``, from 1.

    Attributes
    ----------
    base
        The method's own name.
    preset
        Its variant; empty without one.
    teacher
        What stands behind the ``@``; ``None`` without one.
    """

    base: str
    preset: str = ""
    teacher: str | None = None

    @classmethod
    def read(cls, name: str) -> Self:
        """Divide a name that is no sum."""
        plain, at, teacher = name.partition("@")
        base, _, preset = plain.partition(":")
        return cls(base, preset, teacher if at else None)

    @property
    def plain(self) -> str:
        """The name without the teacher."""
        return f"{self.base}:{self.preset}" if self.preset else self.base

    def __str__(self) -> str:
        return self.plain if self.teacher is None else f"{self.plain}@{self.teacher}"


Settings = TypeVar("Settings", bound=AloneSettings)


@dataclass(frozen=True)
class Given:
    """What a recipe is made for: the networks, and what its stages must know of the run.

    Attributes
    ----------
    student
        Network to train.
    teachers
        Trained networks, frozen.
    views
        What turns a batch into the input of each teacher.
    student_view
        What turns a batch into the input of the student; ``None`` where it takes the batch as it is.
    number
        Which teacher is learned from, from 0.
    seed
        Of every random choice the stages make.
    sample_masks
        ``sample_masks(count, generator)`` -> ``[count, h, w]`` random ground-truth masks of the training set.
    input_shape
        ``(D, H, W)`` of an image as it is in a batch.
    """

    student: nn.Module
    teachers: Sequence[nn.Module] = ()
    views: Sequence[View] = ()
    student_view: View | None = None
    number: int = 0
    seed: int = 0
    sample_masks: SampleMasks | None = None
    input_shape: tuple[int, int, int] = (3, 64, 64)

    @property
    def teacher(self) -> nn.Module:
        """The teacher that is learned from."""
        return self.teachers[self.number]

    @property
    def view(self) -> View:
        """What turns a batch into the input of that teacher."""
        return self.views[self.number]


def nothing_to_say(classes: int, batch_size: int) -> list[str]:  # noqa: ARG001
    """Return the cautions of a method that has none."""
    return []


@dataclass(frozen=True)
class Method(Generic[Settings]):
    """A published method: its constants and how to build the terms and stages that train it.

    Attributes
    ----------
    name, title, sentence, reference, equation
        For people: what to type, what to show, what it does, where it is published, what it computes.
    settings_class
        Model of its constants.
    scale
        Over what its loss is a sum and over what a mean, and its range where it has one: what a weight multiplies.
    build
        ``build(settings, given) -> Recipe``, see :class:`Given`.
    presets
        Variants by name: the constants in which ``name:preset`` differs.
    needs_teacher
        Whether there must be a teacher.
    needs_labels
        Whether the distillation itself reads the ground truth, not only the segmentation loss beside it.
    needs_features
        Whether it reads layers inside the networks.
    needs_batch
        Whether it teaches nothing with one image a batch.
    needs_classes
        Whether it, or part of it, teaches nothing with two classes.
    caution
        ``caution(classes, batch_size)``: sentences to be said before training starts, where part of the method
        teaches nothing.
    needs_segmenting_teacher
        Whether it builds on a teacher that puts out classes, beyond what its terms read of one: an encoder will not do.
    overrides
        The constants of the preset chosen.
    teacher
        Which of several teachers is learned from, from 0: ``kd@2`` learns from the second.
    sum_of
        The methods it is the sum of.
    """

    name: str
    title: str
    sentence: str
    reference: str
    settings_class: type[Settings]
    build: Callable[[Settings, Given], Recipe]
    equation: str = ""
    scale: str = ""
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    needs_teacher: bool = True
    needs_labels: bool = False
    needs_features: bool = False
    needs_batch: bool = False
    needs_classes: bool = False
    needs_segmenting_teacher: bool = False
    caution: Callable[[int, int], list[str]] = nothing_to_say
    overrides: Mapping[str, Any] = field(default_factory=dict)
    teacher: int = 0
    sum_of: Sequence[Method[Any]] = ()

    @property
    def teachers(self) -> int:
        """How many teachers there must be."""
        own = self.teacher + 1 if self.needs_teacher else 0
        return max([own, *(method.teachers for method in self.sum_of)])

    @property
    def needs(self) -> list[str]:
        """What must be there for the distillation to work, in words."""
        wanted = {
            "a teacher": self.needs_teacher,
            "labels": self.needs_labels,
            "features": self.needs_features,
            "batch > 1": self.needs_batch,
            "classes > 2": self.needs_classes,
        }
        return [name for name, needed in wanted.items() if needed]

    def preset(self, name: str) -> Method[Settings]:
        """Return the variant ``name`` of this method.

        Raises
        ------
        ConfigurationError
            If there is none of that name.
        """
        if name not in self.presets:
            raise ConfigurationError(
                f"The method '{self.name}' has no variant '{name}'.{did_you_mean(name, self.presets)}"
            )
        return replace(
            self,
            name=str(MethodName(self.name, name)),
            title=f"{self.title} ({name})",
            presets={},
            overrides={**self.overrides, **self.presets[name]},
        )

    def settings(self, values: Mapping[str, Any] | None = None) -> Settings:
        """Return the method's constants, ``values`` replacing those of the preset.

        Raises
        ------
        pydantic.ValidationError
            If a value is unknown or out of bounds.
        """
        return self.settings_class(**{**self.overrides, **(values or {})})

    def recipe(self, settings: Settings, given: Given) -> Recipe:
        """Make the terms and stages of this method for the teacher it learns from."""
        if self.sum_of:
            return self.build(settings, given)
        given = replace(given, number=self.teacher)
        if not self.needs_teacher or segments(given.teacher):
            return self.build(settings, given).of_teacher(self.teacher)
        from napari_kdseg.distillation.features_only import no_logits_message, of_features

        if self.needs_segmenting_teacher:
            raise ConfigurationError(no_logits_message(self.name))
        return of_features(self.name, self.build(settings, given)).of_teacher(self.teacher)

    def stages(
        self,
        teacher: nn.Module | Sequence[nn.Module] | None,
        student: nn.Module,
        settings: AloneSettings | None = None,
        *,
        seed: int = 0,
        sample_masks: SampleMasks | None = None,
        input_shape: tuple[int, int, int] = (3, 64, 64),
        views: Sequence[View] = (),
        student_view: View | None = None,
    ) -> list[Stage]:
        """Build the stages of this method, to be run in order; the last one trains the student.

        Parameters
        ----------
        teacher
            Trained network, or several; frozen here, and copied where an assistant starts from one.
        student
            Network to train. Put all on their device first, or move the stages with :meth:`Stage.to`.
        settings
            Constants; ``None`` for those of :meth:`settings`.
        seed
            Of every random choice the stages make.
        sample_masks
            ``sample_masks(count, generator)`` -> ``[count, h, w]`` random ground-truth masks of the training
            set, or ``None`` to reuse masks of recent batches.
        input_shape
            ``(D, H, W)`` of an image as it is in a batch, to find the shapes of tapped features with.
        views
            What turns a batch into the input of each teacher; none where all networks take the same.
        student_view
            What turns a batch into the input of the student.

        Raises
        ------
        ConfigurationError
            If a teacher is missing, the settings belong to another method, or layers do not fit together.
        """
        settings = self.settings() if settings is None else settings
        if not isinstance(settings, self.settings_class):
            raise ConfigurationError(
                f"The settings given are {type(settings).__name__}, but the method '{self.name}' needs "
                f"{self.settings_class.__name__}. Make them with the method's own settings()."
            )
        from napari_kdseg.distillation.stages import StudentStage, freeze, seeded
        from napari_kdseg.distillation.view import View

        offered = list(teacher) if isinstance(teacher, Sequence) else [] if teacher is None else [teacher]
        teachers = [freeze(one) for one in offered[: self.teachers]]
        self._check_teachers(len(teachers))
        given = Given(
            student,
            teachers,
            views or [View()] * len(teachers),
            student_view,
            seed=seed,
            sample_masks=sample_masks,
            input_shape=input_shape,
        )
        with seeded(seed, self.name):
            recipe = self.recipe(settings, given)
            last = StudentStage(
                student,
                settings,
                recipe.terms,
                teachers=teachers,
                views=given.views,
                view=student_view,
                input_shape=input_shape,
                seed=seed,
            )
        return [*recipe.before, last]

    def _check_teachers(self, given: int) -> None:
        if self.teachers and not given:
            raise ConfigurationError(
                f"The method '{self.name}' needs a teacher. Choose a trained network as teacher."
            )
        if given < self.teachers:
            raise ConfigurationError(
                f"The method '{self.name}' learns from {self.teachers} teachers, but there "
                f"{'is one' if given == 1 else f'are {given}'}. Name further teachers, or leave out '@{self.teachers}'."
            )


def did_you_mean(name: str, known: Sequence[str] | Mapping[str, object]) -> str:
    """Return a sentence that lists the known names, the nearest first."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    if near:
        return f" Did you mean {' or '.join(repr(one) for one in near)}?"
    return f" Known are: {', '.join(known)}." if known else " It has no variants."
