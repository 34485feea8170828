"""PA: pair-wise distillation, one of the three parts of SKD (Liu et al., CVPR 2019)."""

from __future__ import annotations

from functools import partial

from napari_kdseg.distillation.declarations import Recipe, Term
from napari_kdseg.distillation.distiller import Given, Method
from napari_kdseg.distillation.settings import FeatureSettings
from napari_kdseg.settings import setting


class PairWiseSettings(FeatureSettings):
    """Constants of pair-wise distillation."""

    weight: float = setting(
        10.0,
        "Distillation weight",
        "Weight beside the segmentation loss; it belongs to the number of nodes. 10 is CIRKD's for windows of 2 "
        "pixels, of which a map of 64 has 32 a side; the authors take 0.5 for windows of half the map.",
        symbol="λ",
        ge=0,
        le=10000,
    )
    nodes: int = setting(
        32,
        "Nodes along each side",
        "The feature map is pooled to this many nodes a side before their similarities are compared.",
        ge=1,
        le=128,
    )
    window: float | None = setting(
        None,
        "Window",
        "Side of the windows the feature map is pooled over, in place of a number of nodes: below 1 a share of the "
        "map, 0.5 in the authors' code, from 1 whole pixels, 2 in CIRKD's. Empty: by the number of nodes.",
        gt=0,
        le=1024,
    )
    constant_norm: bool = setting(
        False,
        "Length of vectors is constant",
        "Leave the vectors' length out of the gradient, as the authors' code does.",
    )


def build(settings: PairWiseSettings, _: Given) -> Recipe:
    """Make the one term.

    EMKD's table III lists "PA" beside "SKD", and PLC-KD's "PA" cites the same paper: it is the pair-wise part alone.
    The authors' code compares the layer the classifier reads, and so does CIRKD's.
    """
    from napari_kdseg.distillation.losses.pair_wise import pair_wise
    from napari_kdseg.distillation.losses.pairs import over_pairs

    loss = partial(
        pair_wise, nodes=settings.nodes, window=settings.window, constant_norm=settings.constant_norm
    )
    term = Term(
        "pa",
        partial(over_pairs, loss),
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
    scale="squares: mean over pairs of nodes, 0 to 4; falls steeply with fewer nodes",
    settings_class=PairWiseSettings,
    build=build,
    presets={
        "authors": {"window": 0.5, "constant_norm": True, "weight": 0.5},
        "cirkd": {"window": 2.0, "weight": 10.0},
    },
    needs_features=True,
)
