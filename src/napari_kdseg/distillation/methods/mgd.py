"""MGD: masked generative distillation (Yang et al., ECCV 2022)."""

from __future__ import annotations

from functools import partial
from typing import Literal

from napari_kdseg.distillation.declarations import Recipe, Term
from napari_kdseg.distillation.distiller import Given, Method
from napari_kdseg.distillation.settings import FeatureSettings
from napari_kdseg.settings import setting


class MgdSettings(FeatureSettings):
    """Constants of MGD."""

    weight: float = setting(
        1.0,
        "Distillation weight",
        "Weight of the mean squared error beside the segmentation loss; the authors weight a sum by 0.00002.",
        symbol="α",
        ge=0,
        le=10000,
    )
    masked_share: float = setting(
        0.75,
        "Masked share",
        "Share of the pixels of the student's feature that are hidden.",
        symbol="λ",
        ge=0,
        lt=1,
    )
    reduction: Literal["mean", "sum"] = setting(
        "mean",
        "Over channels and pixels",
        "Mean does not depend on the size of the feature; sum is what the authors' weight belongs to.",
    )


def build(settings: MgdSettings, _: Given) -> Recipe:
    """Make the one term, which learns to generate beside the student.

    The authors read the last stage of a backbone that stays at 1/8, and add channel-wise distillation of the logits,
    as ``mgd:authors+cwd`` does. We read the layer before the classifier, as for the other methods of features, since
    the last stage of most encoders here is at 1/32: name it as ``@bottom`` where it is not.
    """
    from napari_kdseg.distillation.losses.mgd import MaskedGenerativeDistillation

    term = Term(
        "mgd",
        None,
        student_taps=settings.student_layers or ("@feature",),
        teacher_taps=settings.teacher_layers or ("@feature",),
        weight=settings.weight,
        learned=partial(
            MaskedGenerativeDistillation,
            masked_share=settings.masked_share,
            reduction=settings.reduction,
        ),
    )
    return Recipe([term])


MGD = Method(
    name="mgd",
    title="Masked generative distillation",
    sentence="From a quarter of the student's feature, two convolutions must generate the teacher's whole.",
    reference="Yang, Li, Shao, Shi, Yuan and Yuan: Masked Generative Distillation. ECCV 2022, arXiv 2205.01529",
    equation="L = mean (G(A f_S · M) − f_T)²,  M keeps a quarter of the pixels, G = conv3×3, ReLU, conv3×3",
    scale=(
        "squares: mean over channels and pixels (in the variant the sum), in the square of the teacher's feature"
    ),
    settings_class=MgdSettings,
    build=build,
    presets={"authors": {"reduction": "sum", "weight": 2e-5}},
    needs_features=True,
)
