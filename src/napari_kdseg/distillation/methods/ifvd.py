"""IFVD: intra-class feature variation distillation (Wang et al., ECCV 2020)."""

from __future__ import annotations

from functools import partial

from napari_kdseg.distillation.declarations import Recipe, Term
from napari_kdseg.distillation.distiller import Given, Method
from napari_kdseg.distillation.settings import FeatureSettings
from napari_kdseg.settings import setting


class IfvdSettings(FeatureSettings):
    """Constants of IFVD."""

    weight: float = setting(
        20.0,
        "Distillation weight",
        "Weight beside the segmentation loss; 20 is CIRKD's, the authors take 200.",
        symbol="λ",
        ge=0,
        le=10000,
    )


def build(settings: IfvdSettings, _: Given) -> Recipe:
    """Make the one term. The paper's tables add distillation of the output and an adversarial term to it."""
    from napari_kdseg.distillation.losses.ifvd import ifvd
    from napari_kdseg.distillation.losses.pairs import over_pairs

    term = Term(
        "ifvd",
        partial(over_pairs, ifvd),
        student_taps=settings.student_layers or ("@feature",),
        teacher_taps=settings.teacher_layers or ("@feature",),
        weight=settings.weight,
    )
    return Recipe([term])


IFVD = Method(
    name="ifvd",
    title="Intra-class feature variation",
    sentence="Each pixel is to lie as near to the mean feature of its class as it does in the teacher.",
    reference=(
        "Wang, Zhou, Jiang, Bai and Xu: Intra-class Feature Variation Distillation for Semantic Segmentation. "
        "ECCV 2020"
    ),
    equation="L = mean_p (s_S(p) − s_T(p))²,  s(p) = cos(f(p), mean of f over the class of p in its image)",
    scale="squares: mean over pixels, 0 to 4",
    settings_class=IfvdSettings,
    build=build,
    presets={"authors": {"weight": 200.0}},
    needs_labels=True,
    needs_features=True,
)
