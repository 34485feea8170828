"""Attention transfer (Zagoruyko and Komodakis, ICLR 2017)."""

from __future__ import annotations

from functools import partial
from typing import Literal

from napari_kdseg.distillation.declarations import Recipe, Term
from napari_kdseg.distillation.distiller import Given, Method
from napari_kdseg.distillation.settings import FeatureSettings
from napari_kdseg.settings import setting

LAYERS = ("@shallow", "@middle", "@feature")


class AttentionTransferSettings(FeatureSettings):
    """Constants of attention transfer."""

    weight: float = setting(
        1.0,
        "Distillation weight",
        "Weight beside the segmentation loss; 1 on the sum over pixels is about CIRKD's 10000 on their mean.",
        symbol="β",
        ge=0,
        le=1000000,
    )
    exponent: float = setting(
        2.0,
        "Exponent",
        "Power of the activations that make the attention map; higher looks at the strongest only.",
        symbol="p",
        ge=1,
        le=16,
    )
    reduction: Literal["sum", "mean"] = setting(
        "sum",
        "Over the pixels",
        "Sum does not depend on the resolution; mean is what published weights of 1000 to 10000 belong to.",
    )


def build(settings: AttentionTransferSettings, _: Given) -> Recipe:
    """Make the one term, summed over the pairs of layers.

    CIRKD's last feature has 64 x 128 = 8192 pixels, so its weight 10000 on the mean is 1.2 on the sum.
    """
    from napari_kdseg.distillation.losses.attention_transfer import attention_transfer
    from napari_kdseg.distillation.losses.pairs import over_pairs

    loss = partial(attention_transfer, exponent=settings.exponent, reduction=settings.reduction)
    term = Term(
        "at",
        partial(over_pairs, loss),
        student_taps=settings.student_layers or LAYERS,
        teacher_taps=settings.teacher_layers or LAYERS,
        weight=settings.weight,
    )
    return Recipe([term])


AT = Method(
    name="at",
    title="Attention transfer",
    sentence="At several depths the student is to be active where the teacher is.",
    reference=(
        "Zagoruyko and Komodakis: Paying More Attention to Attention: Improving the Performance of Convolutional "
        "Neural Networks via Attention Transfer. ICLR 2017, arXiv 1612.03928"
    ),
    equation="L = Σ_layers ‖q_S − q_T‖²,  q = vec(mean_c |f|ᵖ) / ‖vec(mean_c |f|ᵖ)‖",
    scale="maps of length 1: sum over pixels (in the variants the mean), mean over images, 0 to 2 a pair of layers",
    settings_class=AttentionTransferSettings,
    build=build,
    presets={
        "authors": {"reduction": "mean", "weight": 1000.0},
        "cirkd": {
            "reduction": "mean",
            "weight": 10000.0,
            "student_layers": ("@feature",),
            "teacher_layers": ("@feature",),
        },
    },
    needs_features=True,
)
