"""SPKD: similarity-preserving knowledge distillation (Tung and Mori, ICCV 2019)."""

from __future__ import annotations

from functools import partial

from napari_kdseg.distillation.declarations import Recipe, Term
from napari_kdseg.distillation.distiller import Given, Method
from napari_kdseg.distillation.settings import FeatureSettings
from napari_kdseg.settings import setting


class SpkdSettings(FeatureSettings):
    """Constants of SPKD."""

    weight: float = setting(
        3000.0,
        "Distillation weight",
        "Weight beside the segmentation loss; 3000 is the authors', made for the large batches of classification.",
        symbol="γ",
        ge=0,
        le=1000000,
    )


def build(settings: SpkdSettings, _: Given) -> Recipe:
    """Make the one term."""
    from napari_kdseg.distillation.losses.pairs import over_pairs
    from napari_kdseg.distillation.losses.spkd import spkd

    term = Term(
        "spkd",
        partial(over_pairs, spkd),
        student_taps=settings.student_layers or ("@feature",),
        teacher_taps=settings.teacher_layers or ("@feature",),
        weight=settings.weight,
    )
    return Recipe([term])


def caution(classes: int, batch_size: int) -> list[str]:  # noqa: ARG001
    """Say so where the batch holds nothing to compare."""
    if batch_size > 1:
        return []
    return [
        "SPKD compares the images of a batch with each other. With one image a batch its loss is always 0 and teaches "
        "nothing: take two or more images a batch."
    ]


SPKD = Method(
    name="spkd",
    title="Similarity preserving",
    sentence="Images of a batch that resemble each other to the teacher are to do so to the student.",
    reference="Tung and Mori: Similarity-Preserving Knowledge Distillation. ICCV 2019, arXiv 1907.09682",
    equation="L = ‖G_S − G_T‖² / N²,  G = rows of Q Qᵀ of length 1",
    scale="squares: mean over pairs of images, at most 4 / N",
    settings_class=SpkdSettings,
    build=build,
    needs_features=True,
    needs_batch=True,
    caution=caution,
)
