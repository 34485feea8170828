"""Hinton's knowledge distillation at every pixel (Hinton, Vinyals and Dean 2015, arXiv 1503.02531)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from napari_kdseg.distillation.distiller import Method, Stage, Term
from napari_kdseg.distillation.settings import KdSettings

if TYPE_CHECKING:
    from torch import nn


def build(teacher: nn.Module, student: nn.Module, settings: KdSettings, **_: Any) -> list[Stage]:
    """Build the one stage: L_seg + lambda * KD."""
    from napari_kdseg.distillation.losses.knowledge_distillation import kd
    from napari_kdseg.distillation.stages import StudentStage, freeze

    term = Term("kd", partial(kd, temperature=settings.temperature), weight=settings.kd_weight)
    return [StudentStage(student, settings, [term], teacher=freeze(teacher))]


KD = Method(
    name="kd",
    title="Knowledge distillation",
    sentence="Train the student on the ground truth and the teacher's output at every pixel, right or wrong.",
    reference="Hinton, Vinyals and Dean: Distilling the Knowledge in a Neural Network. arXiv 1503.02531, 2015",
    settings_class=KdSettings,
    build=build,
)
