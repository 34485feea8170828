"""Channel-wise distillation of logits, features or both (Shu et al., ICCV 2021)."""

from __future__ import annotations

from functools import partial

from napari_kdseg.distillation.declarations import Recipe, Term
from napari_kdseg.distillation.distiller import Given, Method
from napari_kdseg.distillation.settings import FeatureSettings
from napari_kdseg.settings import setting


class CwdSettings(FeatureSettings):
    """Constants of channel-wise distillation. A weight of 0 leaves that part out."""

    temperature: float = setting(
        4.0,
        "Temperature",
        "Softens the distribution of each channel over the image before the two are compared.",
        symbol="τ",
        gt=0,
        le=100,
    )
    logits_weight: float = setting(
        3.0, "Weight on logits", "Weight of the loss on the output maps.", symbol="α", ge=0, le=10000
    )
    features_weight: float = setting(
        0.0,
        "Weight on features",
        "Weight of the loss on each pair of layers; the paper has 50.",
        symbol="α",
        ge=0,
        le=10000,
    )


def build(settings: CwdSettings, _: Given) -> Recipe:
    """Build a term on the logits and one on features, each unless its weight is 0.

    Features are brought together by a 1x1 convolution where their channels differ, as in CIRKD's code, whose weights
    3 and 50 these are; the authors' code has batch normalisation and ReLU behind it.
    """
    from napari_kdseg.distillation.connectors import match_channels
    from napari_kdseg.distillation.losses.cwd import cwd
    from napari_kdseg.distillation.losses.pairs import over_pairs

    terms = [
        Term("cwd", partial(cwd, temperature=settings.temperature), weight=settings.logits_weight),
        Term(
            "cwd_features",
            partial(over_pairs, cwd, temperature=settings.temperature),
            student_taps=settings.student_layers or ("@feature",),
            teacher_taps=settings.teacher_layers or ("@feature",),
            weight=settings.features_weight,
            connector=match_channels,
        ),
    ]
    return Recipe([term for term in terms if term.weight])


CWD = Method(
    name="cwd",
    title="Channel-wise distillation",
    sentence="The student learns where in the image each channel of the teacher is most active.",
    reference="Shu, Liu, Gao, Yan and Shen: Channel-wise Knowledge Distillation for Dense Prediction. ICCV 2021",
    equation="L = τ²/(N·C) Σ_n,c KL(softmax_hw(y_T/τ) ‖ softmax_hw(y_S/τ))",
    scale="KL: sum over pixels, mean over channels and images, times τ²",
    settings_class=CwdSettings,
    build=build,
    presets={
        "features": {"logits_weight": 0.0, "features_weight": 50.0},
        "both": {"features_weight": 50.0},
    },
)
