"""PA: pair-wise distillation, one of the three parts of SKD (Liu et al., CVPR 2019)."""

from __future__ import annotations

from functools import partial
from typing import Any

from napari_kdseg.distillation.distiller import Method, Recipe, Term
from napari_kdseg.distillation.settings import FeatureSettings, constant


class PairWiseSettings(FeatureSettings):
    """Constants of pair-wise distillation."""

    weight: float = constant(
        10.0,
        "Distillation weight",
        "Weight beside the segmentation loss; 10 is CIRKD's, the authors take 0.5.",
        symbol="λ",
        ge=0,
        le=10000,
    )
    nodes: int = constant(
        8,
        "Nodes along each side",
        "The feature map is pooled to this many nodes a side before their similarities are compared.",
        ge=1,
        le=64,
    )


def build(settings: PairWiseSettings, **_: Any) -> Recipe:
    """Make the one term.

    EMKD's table III lists "PA" beside "SKD", and PLC-KD's "PA" cites the same paper: it is the pair-wise part alone.
    """
    from napari_kdseg.distillation.connectors import over_pairs
    from napari_kdseg.distillation.losses.pair_wise import pair_wise

    term = Term(
        "pa",
        partial(over_pairs, partial(pair_wise, nodes=settings.nodes)),
        student_taps=settings.student_layers or ("@feature",),
        teacher_taps=settings.teacher_layers or ("@feature",),
        weight=settings.weight,
    )
    return Recipe([term])


PA = Method(
    name="pa",
    title="Pair-wise distillation",
    sentence="Places of an image that resemble each other to the teacher are to do so to the student.",
    reference=(
        "Liu, Chen, Liu, Qin, Luo and Wang: Structured Knowledge Distillation for Semantic Segmentation. CVPR 2019, "
        "arXiv 1903.04197"
    ),
    equation="L = mean_ij (a_S(i,j) − a_T(i,j))²,  a(i,j) = cos(f_i, f_j) between nodes",
    settings_class=PairWiseSettings,
    build=build,
    presets={"authors": {"nodes": 2, "weight": 0.5}},
    needs_features=True,
)
