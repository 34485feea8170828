"""LOCAL: probabilities and differences between neighbours (Xie et al., BMVC 2018)."""

from __future__ import annotations

from napari_kdseg.distillation.declarations import Recipe, Term
from napari_kdseg.distillation.distiller import Given, Method
from napari_kdseg.distillation.settings import AloneSettings
from napari_kdseg.settings import setting

OUR_WEIGHT = "The default is ours: the paper's constants were not available."


class LocalSettings(AloneSettings):
    """Constants of LOCAL. A weight of 0 leaves that part out."""

    zero_order_weight: float = setting(
        1.0,
        "Zero-order weight",
        f"Weight of the squared distance of the class probabilities. {OUR_WEIGHT}",
        ge=0,
        le=10000,
    )
    first_order_weight: float = setting(
        1.0,
        "First-order weight",
        f"Weight of the squared distance of each pixel's mean difference from its neighbours. {OUR_WEIGHT}",
        ge=0,
        le=10000,
    )


def build(settings: LocalSettings, _: Given) -> Recipe:
    """Build the zero-order and the first-order term."""
    from napari_kdseg.distillation.losses.local_affinity import first_order, zero_order

    terms = [
        Term("local_zero_order", zero_order, weight=settings.zero_order_weight),
        Term("local_first_order", first_order, weight=settings.first_order_weight),
    ]
    return Recipe([term for term in terms if term.weight])


LOCAL = Method(
    name="local",
    title="Local affinity",
    sentence="The student learns the teacher's probabilities and how much each pixel differs from its neighbours.",
    reference=(
        "Xie, Shuai, Hu, Lin and Zheng: Improving Fast Segmentation With Teacher-student Learning. BMVC 2018 "
        "(in the form later papers describe)"
    ),
    equation="L = mean_px ‖p_S − p_T‖² + mean_px (c_S − c_T)²,  c(i) = mean over 8 neighbours j of ‖z(i) − z(j)‖",
    scale="squares: sum over classes, mean over pixels; probabilities, 0 to 2, and distances of logits, unbounded",
    settings_class=LocalSettings,
    build=build,
    presets={"zero-order": {"first_order_weight": 0.0}, "first-order": {"zero_order_weight": 0.0}},
)
