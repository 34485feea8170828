"""EMKD: prediction, importance and region-affinity maps (Qin et al., TMI 2021).

The variants are the rows of the paper's tables IV and V. ``emkd`` takes the forms of the authors' released code, to
which the printed weights belong, its segmentation loss included; ``emkd-paper`` takes those of the paper's equations.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

from napari_kdseg.distillation.declarations import Recipe, Term
from napari_kdseg.distillation.distiller import Given, Method
from napari_kdseg.distillation.settings import FeatureSettings
from napari_kdseg.settings import setting

LAYERS = ("@stem", "@middle")
"""The first and the last pair of embeddings of the same size: at 1/2 and at 1/8 resolution."""


class EmkdSettings(FeatureSettings):
    """Constants of EMKD. A weight of 0 leaves that part out."""

    prediction_weight: float = setting(
        0.1, "Weight of prediction maps", "Weight of the loss on the output maps.", symbol="α", ge=0, le=10000
    )
    importance_weight: float = setting(
        0.9,
        "Weight of importance maps",
        "Weight of the loss on where in the image layers are active.",
        symbol="β₁",
        ge=0,
        le=10000,
    )
    region_weight: float = setting(
        0.9,
        "Weight of region affinity",
        "Weight of the loss on how alike the regions of two classes are.",
        symbol="β₂",
        ge=0,
        le=10000,
    )
    temperature: float = setting(
        4.0,
        "Temperature",
        "Softens both output maps before they are compared; the paper has none, that is 1.",
        symbol="τ",
        gt=0,
        le=100,
    )
    direction: Literal["forward", "reverse"] = setting(
        "forward",
        "Direction of the divergence",
        "From the teacher to the student (forward, the released code) or from the student to the teacher (reverse, "
        "the paper).",
    )
    power: Literal[2, 4] = setting(
        4,
        "Power of activations",
        "Activations are raised to this power before they are summed: 4 in the released code, 2 in the paper.",
    )
    importance_norm: Literal["l2sq", "l1"] = setting(
        "l2sq",
        "Distance of importance maps",
        "Squared differences (l2sq, the released code) or absolute ones (l1, the paper; divided by the square root "
        "of the map's size so that the weight stays right).",
    )
    importance_resize: Literal["bilinear", "pool"] = setting(
        "bilinear",
        "Resizing of features",
        "How the student's feature is brought to the teacher's size: bilinear (the released code) or by pooling (the "
        "paper).",
    )
    region_reduce: Literal["vector", "mean"] = setting(
        "vector",
        "Region contrasts compared",
        "Compare the contrast of each pair of classes (vector) or their mean; the same for two classes.",
        symbol="V_rc",
    )
    region_p: Literal[1, 2] = setting(
        2,
        "Distance of region contrasts",
        "Absolute (1) or squared (2) differences.",
        symbol="p",
    )
    region_masks: Literal["nearest", "area"] = setting(
        "nearest",
        "Resizing of masks",
        "Nearest pixel (the released code), or area, which keeps regions smaller than a feature's pixel.",
    )


def build(settings: EmkdSettings, _: Given) -> Recipe:
    """Build a term for each of the three parts that has a weight; each reads all layer pairs."""
    from napari_kdseg.distillation.losses.importance_map import importance_map
    from napari_kdseg.distillation.losses.prediction_map import prediction_map
    from napari_kdseg.distillation.losses.region_affinity import region_affinity

    pmd = partial(prediction_map, temperature=settings.temperature, direction=settings.direction)
    imd = partial(
        importance_map,
        power=settings.power,
        norm=settings.importance_norm,
        resize=settings.importance_resize,
    )
    rad = partial(
        region_affinity, reduce=settings.region_reduce, p=settings.region_p, masks=settings.region_masks
    )
    student, teacher = settings.student_layers or LAYERS, settings.teacher_layers or LAYERS
    terms = (
        Term("pmd", pmd, weight=settings.prediction_weight),
        Term("imd", imd, student, teacher, weight=settings.importance_weight),
        Term("rad", rad, student, teacher, weight=settings.region_weight),
    )
    return Recipe([term for term in terms if term.weight])


def _only(*parts: str) -> dict[str, float]:
    weights = {"pmd": "prediction_weight", "imd": "importance_weight", "rad": "region_weight"}
    return {weight: 0.0 for part, weight in weights.items() if part not in parts}


AUTHORS: dict[str, object] = {
    "segmentation_loss": "focal+dice",
    "cross_entropy_weight": 0.5,
    "dice_weight": 0.5,
}
"""The segmentation loss of the authors' code, to which the weights of the three parts belong. Cross entropy plus Dice,
as all other methods have it, is two to three times as large: beside it the three parts would count that much less."""

PAPER: dict[str, object] = {
    "temperature": 1.0,
    "direction": "reverse",
    "power": 2,
    "importance_norm": "l1",
    "importance_resize": "pool",
    "region_reduce": "mean",
    "region_p": 1,
}
"""What eq. 1 to 8 print. Eq. 7 makes the region contrast one number, whose norm is its absolute value for any p.
L_seg "can be either of the cross entropy loss and the dice loss", without weights: it stays that of all methods."""

EMKD = Method(
    name="emkd",
    title="EMKD",
    sentence="The student learns the teacher's output, where its layers are active, and how it tells regions apart.",
    reference=(
        "Qin, Bu, Liu, Shen, Zhou, Gu, Wang, Wu and Dai: Efficient Medical Image Segmentation Based on Knowledge "
        "Distillation. IEEE TMI 2021"
    ),
    equation="L = ½ L_focal + ½ L_Dice + α τ² KL(p_T ‖ p_S) + β₁ Σ ‖M_S/‖M_S‖₂ - M_T/‖M_T‖₂‖₂² + "
    "β₂ Σ mean (V_S - V_T)²,  M = mean_c |f|⁴,  V_ij = cos(R_i, R_j)",
    scale=(
        "KL: sum over classes, mean over pixels, times τ²; importance: sum over pixels of maps of length 1, "
        "0 to 2 a pair of layers; regions: mean over pairs of classes, 0 to 4 a pair of layers"
    ),
    settings_class=EmkdSettings,
    build=build,
    presets={
        "pmd": _only("pmd"),
        "imd": _only("imd"),
        "rad": _only("rad"),
        "pmd+imd": _only("pmd", "imd"),
        "pmd+rad": _only("pmd", "rad"),
        "imd+rad": _only("imd", "rad"),
        "pmd+imd+rad": {},
    },
    overrides=AUTHORS,
    needs_labels=True,
    needs_features=True,
)

EMKD_PAPER = replace(
    EMKD,
    name="emkd-paper",
    title="EMKD, as printed",
    sentence="EMKD with the equations as the paper prints them, where the authors' code differs.",
    equation="L = L_seg + α KL(p_S ‖ p_T) + β₁ Σ ‖M_S/‖M_S‖₂ - M_T/‖M_T‖₂‖₁/√(hw) + β₂ Σ |V_S - V_T|,  "
    "M = mean_c |f|²,  V = mean_ij cos(R_i, R_j)",
    scale=(
        "KL: sum over classes, mean over pixels; importance: mean over pixels of maps of root mean square 1, 0 to 2 a "
        "pair of layers; regions: absolute difference of one number in [-1, 1], mean over images"
    ),
    presets={name: {**PAPER, **preset} for name, preset in EMKD.presets.items()},
    overrides=PAPER,
)
