"""KD on standardised logits (Sun et al., CVPR 2024)."""

from __future__ import annotations

from functools import partial

from napari_kdseg.distillation.declarations import Recipe, Term
from napari_kdseg.distillation.distiller import Given, Method
from napari_kdseg.distillation.settings import AloneSettings
from napari_kdseg.settings import setting


class LogitStandardisationSettings(AloneSettings):
    """Constants of distillation with standardised logits."""

    temperature: float = setting(
        2.0,
        "Base temperature",
        "Softens both maps after the logits of each pixel were standardised.",
        symbol="τ",
        gt=0,
        le=100,
    )
    weight: float = setting(
        9.0,
        "Distillation weight",
        "Weight of the distillation loss beside the segmentation loss; the authors' 9 stands beside a cross entropy "
        "weighted by 0.1 (CIFAR-100) or 1 (ImageNet).",
        symbol="λ",
        ge=0,
        le=10000,
    )


def build(settings: LogitStandardisationSettings, _: Given) -> Recipe:
    """Build the one term."""
    from napari_kdseg.distillation.losses.logit_standardisation import logit_standardisation

    loss = partial(logit_standardisation, temperature=settings.temperature)
    return Recipe([Term("logit_std", loss, weight=settings.weight)])


def caution(classes: int, batch_size: int) -> list[str]:  # noqa: ARG001
    """Say that it teaches nothing with two classes."""
    if classes > 2:
        return []
    return [
        "With two classes logit standardisation teaches nothing: two standardised logits are always +0.707 and -0.707, "
        "so the loss has no gradient. Choose kd, or a task with three classes or more."
    ]


LOGIT_STANDARDISATION = Method(
    name="logit-std",
    title="Logit standardisation",
    sentence="Knowledge distillation that leaves the student free in the scale and shift of its logits.",
    reference="Sun, Ren, Li, Wang and Cao: Logit Standardization in Knowledge Distillation. CVPR 2024",
    equation="L = τ² mean_px KL(softmax(Z(z_T)/τ) ‖ softmax(Z(z_S)/τ)),  Z(z) = (z − mean_c z) / std_c z",
    scale="KL: sum over classes, mean over pixels, times τ², of logits with a deviation of 1",
    settings_class=LogitStandardisationSettings,
    build=build,
    needs_classes=True,
    caution=caution,
)
