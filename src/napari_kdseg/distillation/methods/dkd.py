"""Decoupled knowledge distillation at every pixel (Zhao et al., CVPR 2022)."""

from __future__ import annotations

from functools import partial

from napari_kdseg.distillation.declarations import Recipe, Term
from napari_kdseg.distillation.distiller import Given, Method
from napari_kdseg.distillation.settings import AloneSettings
from napari_kdseg.settings import setting


class DkdSettings(AloneSettings):
    """Constants of decoupled knowledge distillation."""

    target_weight: float = setting(
        1.0,
        "Weight of the true class",
        "Weight of what the teacher says of the true class (TCKD).",
        symbol="α",
        ge=0,
        le=10000,
    )
    other_weight: float = setting(
        8.0,
        "Weight of the other classes",
        "Weight of how the teacher ranks the other classes (NCKD); nothing with two classes.",
        symbol="β",
        ge=0,
        le=10000,
    )
    temperature: float = setting(
        4.0,
        "Temperature",
        "Softens both maps before they are compared; 1 leaves them as they are.",
        symbol="T",
        gt=0,
        le=100,
    )
    warm_up_epochs: int = setting(
        20,
        "Warm-up epochs",
        "Epochs over which the distillation loss rises linearly to its full weight.",
        ge=0,
        le=10000,
    )


def linear_warm_up(epoch: int, *, epochs: int) -> float:
    """Return 1/epochs in the first epoch (0), rising to 1 in the last of ``epochs`` and after.

    The authors' code counts epochs from 1, so its factor in the first is 1/20 as well, not 0.
    """
    return 1.0 if epochs == 0 else min((epoch + 1) / epochs, 1.0)


def build(settings: DkdSettings, _: Given) -> Recipe:
    """Build the one term, warmed up."""
    from napari_kdseg.distillation.losses.dkd import dkd

    loss = partial(
        dkd, alpha=settings.target_weight, beta=settings.other_weight, temperature=settings.temperature
    )
    return Recipe([Term("dkd", loss, schedule=partial(linear_warm_up, epochs=settings.warm_up_epochs))])


def caution(classes: int, batch_size: int) -> list[str]:  # noqa: ARG001
    """Say what DKD is with two classes."""
    if classes > 2:
        return []
    return [
        "With two classes DKD is the same as plain knowledge distillation (kd): only one class is left beside the "
        "true one, so there is no ranking of other classes to learn, and that part (NCKD) is 0."
    ]


DKD = Method(
    name="dkd",
    title="Decoupled knowledge distillation",
    sentence="Weighs the teacher's word on the true class apart from how it ranks the other classes.",
    reference="Zhao, Cui, Song, Qiu and Liang: Decoupled Knowledge Distillation. CVPR 2022",
    equation="L = τ² mean_px [α KL(b_T ‖ b_S) + β KL(p̂_T ‖ p̂_S)],  b = (p_y, 1 − p_y),  p̂ = softmax over c ≠ y",
    scale="KL: sum over classes, mean over pixels, times τ²",
    settings_class=DkdSettings,
    build=build,
    needs_labels=True,
    needs_classes=True,
    caution=caution,
)
