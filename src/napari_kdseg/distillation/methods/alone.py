"""The baseline of every table: the student trained on the ground truth alone, without a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_kdseg.distillation.distiller import Method, Stage
from napari_kdseg.distillation.settings import AloneSettings

if TYPE_CHECKING:
    from torch import nn


def build(teacher: nn.Module | None, student: nn.Module, settings: AloneSettings, **_: Any) -> list[Stage]:  # noqa: ARG001
    """Build the one stage; a teacher given is not used."""
    from napari_kdseg.distillation.stages import StudentStage

    return [StudentStage(student, settings)]


ALONE = Method(
    name="alone",
    title="Student alone",
    sentence="Train the student on the ground truth only, to see what distillation adds.",
    reference="",
    settings_class=AloneSettings,
    build=build,
    needs_teacher=False,
)
