"""DIST: distillation of correlations, between classes and within each class (Huang et al., NeurIPS 2022)."""

from __future__ import annotations

from functools import partial

from napari_kdseg.distillation.declarations import Recipe, Term
from napari_kdseg.distillation.distiller import Given, Method
from napari_kdseg.distillation.settings import AloneSettings
from napari_kdseg.settings import setting


class DistSettings(AloneSettings):
    """Constants of DIST. A weight of 0 leaves that part out."""

    inter_weight: float = setting(
        1.0,
        "Inter-class weight",
        "Weight of the correlation over the classes of a pixel; teaches nothing with two classes.",
        symbol="β",
        ge=0,
        le=10000,
    )
    intra_weight: float = setting(
        1.0,
        "Intra-class weight",
        "Weight of the correlation of each class over the pixels of the batch.",
        symbol="γ",
        ge=0,
        le=10000,
    )
    temperature: float = setting(
        1.0,
        "Temperature",
        "Softens both maps before they are compared; 1 leaves them as they are.",
        symbol="τ",
        gt=0,
        le=100,
    )


def build(settings: DistSettings, _: Given) -> Recipe:
    """Build the inter-class and the intra-class term."""
    from napari_kdseg.distillation.losses.dist import dist_inter, dist_intra

    terms = [
        Term(
            "dist_inter", partial(dist_inter, temperature=settings.temperature), weight=settings.inter_weight
        ),
        Term(
            "dist_intra", partial(dist_intra, temperature=settings.temperature), weight=settings.intra_weight
        ),
    ]
    return Recipe([term for term in terms if term.weight])


def caution(classes: int, batch_size: int) -> list[str]:  # noqa: ARG001
    """Say which part teaches nothing with two classes."""
    if classes > 2:
        return []
    return [
        "With two classes the inter-class term of DIST teaches nothing: two probabilities that add up to 1 always "
        "correlate with 1 or -1, so it has no gradient. Its intra-class term, where it is in use, does teach."
    ]


DIST = Method(
    name="dist",
    title="DIST",
    sentence="The student keeps the teacher's correlations, over classes and over pixels, not its exact values.",
    reference="Huang, You, Wang, Qian and Xu: Knowledge Distillation from A Stronger Teacher. NeurIPS 2022",
    equation="L = β mean_px [1 − ρ_classes(p_S, p_T)] + γ mean_c [1 − ρ_pixels(p_S, p_T)]",
    scale="1 − correlation: mean over pixels and over classes, 0 to 2 each, times τ²",
    settings_class=DistSettings,
    build=build,
    presets={"inter": {"intra_weight": 0.0}, "intra": {"inter_weight": 0.0}},
    needs_classes=True,
    caution=caution,
)
