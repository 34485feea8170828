"""Hinton's knowledge distillation at every pixel (Hinton, Vinyals and Dean 2015, arXiv 1503.02531)."""

from __future__ import annotations

from functools import partial

from napari_kdseg.distillation.declarations import Recipe, Term
from napari_kdseg.distillation.distiller import Given, Method
from napari_kdseg.distillation.settings import KdSettings


def build(settings: KdSettings, _: Given) -> Recipe:
    """Build the one term: L_seg + lambda * KD."""
    from napari_kdseg.distillation.losses.knowledge_distillation import kd

    return Recipe([Term("kd", partial(kd, temperature=settings.temperature), weight=settings.kd_weight)])


KD = Method(
    name="kd",
    title="Knowledge distillation",
    sentence="Train the student on the ground truth and the teacher's output at every pixel, right or wrong.",
    reference="Hinton, Vinyals and Dean: Distilling the Knowledge in a Neural Network. arXiv 1503.02531, 2015",
    equation="L = L_seg + λ τ² mean_px KL(softmax(z_T/τ) ‖ softmax(z_S/τ))",
    scale="KL: sum over classes, mean over pixels, times τ²",
    settings_class=KdSettings,
    build=build,
)
