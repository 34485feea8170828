"""Methods with a teacher that is an encoder: it has features and no classes, and its features are coarse and wide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_kdseg.distillation.declarations import LOGITS, SOFT_LABELS, Recipe, Term
from napari_kdseg.errors import ConfigurationError

if TYPE_CHECKING:
    from napari_kdseg.distillation.declarations import Connector


class OnGrid(nn.Module):
    """Bring the student's features to the resolution of an encoder's, then through what the method has for them.

    Without this a thousand channels would be enlarged to the size of the student's last feature, which takes
    gigabytes and adds nothing.

    Parameters
    ----------
    sizes
        Height and width of each feature of the encoder.
    inner
        The method's own connector, if it has one.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], inner: nn.Module | None):
        super().__init__()
        self.sizes = list(sizes)
        self.inner = inner

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        """Average each feature ``[N, c, h, w]`` over the patches of the encoder; a coarser one stays as it is."""
        reduced = tuple(
            feature if feature.shape[-1] <= size[1] else F.adaptive_avg_pool2d(feature.float(), size)
            for feature, size in zip(features, self.sizes, strict=True)
        )
        made = reduced if self.inner is None else self.inner(*reduced)
        return made if isinstance(made, tuple) else (made,)


def of_features(method: str, recipe: Recipe) -> Recipe:
    """Fit what a method made to a teacher that puts out features alone.

    Parameters
    ----------
    method
        Its name, for the message.
    recipe
        What it made for this teacher.

    Raises
    ------
    ConfigurationError
        If one of its terms reads what the teacher does not put out.
    """
    for term in recipe.terms:
        if {LOGITS, SOFT_LABELS} & set(term.teacher_taps):
            raise ConfigurationError(no_logits_message(method))
    return replace(recipe, terms=[_on_grid(term) for term in recipe.terms])


def no_logits_message(method: str) -> str:
    """Say that a method and an encoder do not go together, and what does."""
    return (
        f"The method '{method}' reads the teacher's classes, but this teacher is an encoder and puts out features "
        "alone. Choose a method that compares features (fitnet, mimic, at, cwd:features, mgd ...), or put a "
        "segmentation network before it and let the encoder be the second teacher: kd+fitnet@2."
    )


def _on_grid(term: Term) -> Term:
    if len(term.student_taps) != len(term.teacher_taps):
        return term
    return replace(term, connector=partial(_build, term.connector))


def _build(
    inner: Connector | None, student_shapes: Sequence[torch.Size], teacher_shapes: Sequence[torch.Size]
) -> OnGrid:
    sizes = [(int(shape[-2]), int(shape[-1])) for shape in teacher_shapes]
    return OnGrid(sizes, None if inner is None else inner(student_shapes, teacher_shapes))
