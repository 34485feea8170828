"""Losses over several pairs of layers: the student's paired off with the teacher's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor

from napari_kdseg.errors import ConfigurationError

Thing = TypeVar("Thing")


def layer_pairs(student: Sequence[Thing], teacher: Sequence[Thing]) -> list[tuple[Thing, Thing]]:
    """Pair off the student's layers with the teacher's, first with first.

    Raises
    ------
    ConfigurationError
        If there are not as many of both.
    """
    if len(student) != len(teacher):
        raise ConfigurationError(
            f"There are {len(student)} student layers but {len(teacher)} teacher layers, and they are compared in "
            "pairs. Name as many of one as of the other."
        )
    return list(zip(student, teacher, strict=True))


def over_pairs(
    loss: Callable[..., Tensor],
    student: Tensor | tuple[Tensor, ...],
    teacher: Tensor | tuple[Tensor, ...],
    target: Tensor | None = None,
    **constants: object,
) -> Tensor:
    """Sum a loss of one pair of layers over several pairs.

    Parameters
    ----------
    loss
        ``loss(student, teacher, target, **constants) -> scalar`` of two features.
    student, teacher
        One feature ``[N, c, h, w]`` each, or as many of one as of the other.
    target, constants
        Handed on.

    Raises
    ------
    ConfigurationError
        If there are not as many student as teacher layers.
    """
    pairs = layer_pairs(as_tuple(student), as_tuple(teacher))
    total = loss(*pairs[0], target, **constants)
    for one_student, one_teacher in pairs[1:]:
        total = total + loss(one_student, one_teacher, target, **constants)
    return total


def as_tuple(features: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return one feature as a tuple of one, and several as they are."""
    return (features,) if isinstance(features, Tensor) else tuple(features)
