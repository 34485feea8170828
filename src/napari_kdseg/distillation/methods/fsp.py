"""FSP: the flow of the solution procedure (Yim, Joo, Bae and Kim, CVPR 2017)."""

from __future__ import annotations

from napari_kdseg.distillation.declarations import Recipe, Term
from napari_kdseg.distillation.distiller import Given, Method
from napari_kdseg.distillation.settings import FeatureSettings
from napari_kdseg.settings import setting

LAYERS = ("@shallow", "@deep")


class FspSettings(FeatureSettings):
    """Constants of FSP; it needs exactly two layers of each network."""

    weight: float = setting(
        50.0,
        "Distillation weight",
        "Weight beside the segmentation loss; 50 is RepDistiller's.",
        symbol="λ",
        ge=0,
        le=1000000,
    )


def build(settings: FspSettings, _: Given) -> Recipe:
    """Make the one term, of an encoder layer and a decoder layer.

    The paper, and RepDistiller, train on FSP alone first and on the task afterwards; here it is added to the
    segmentation loss like every other term. RepDistiller sums over all pairs of consecutive stages.
    """
    from napari_kdseg.distillation.connectors import match_channels
    from napari_kdseg.distillation.losses.fsp import fsp

    term = Term(
        "fsp",
        fsp,
        student_taps=settings.student_layers or LAYERS,
        teacher_taps=settings.teacher_layers or LAYERS,
        weight=settings.weight,
        connector=match_channels,
    )
    return Recipe([term])


FSP = Method(
    name="fsp",
    title="Flow of the solution procedure",
    sentence="Products of an early layer with a late one are to be the teacher's.",
    reference=(
        "Yim, Joo, Bae and Kim: A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and "
        "Transfer Learning. CVPR 2017"
    ),
    equation="L = mean (G_S − G_T)²,  G = F₁ F₂ᵀ / (hw)",
    scale="squares: mean over the products' entries, in the fourth power of the features",
    settings_class=FspSettings,
    build=build,
    needs_features=True,
)
