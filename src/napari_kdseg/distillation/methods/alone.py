"""The baseline of every table: the student trained on the ground truth alone, without a teacher."""

from __future__ import annotations

from napari_kdseg.distillation.declarations import Recipe
from napari_kdseg.distillation.distiller import Given, Method
from napari_kdseg.distillation.settings import AloneSettings


def build(_settings: AloneSettings, _: Given) -> Recipe:
    """No terms: nothing but the segmentation loss; a teacher given is not used."""
    return Recipe()


ALONE = Method(
    name="alone",
    title="Student alone",
    sentence="Train the student on the ground truth only, to see what distillation adds.",
    reference="",
    equation="L = L_seg",
    scale="cross entropy: mean over pixels; Dice: mean over foreground classes, 0 to 1",
    settings_class=AloneSettings,
    build=build,
    needs_teacher=False,
)
