"""FitNet: hints (Romero et al.: FitNets: Hints for Thin Deep Nets. ICLR 2015)."""

from __future__ import annotations

from functools import partial

from napari_kdseg.distillation.declarations import Recipe, Term
from napari_kdseg.distillation.distiller import Given, Method
from napari_kdseg.distillation.settings import FeatureSettings
from napari_kdseg.settings import setting


class FitnetSettings(FeatureSettings):
    """Constants of FitNet."""

    weight: float = setting(
        10.0,
        "Distillation weight",
        "Weight of the hint beside the segmentation loss; 10 is CIRKD's, RepDistiller takes 100.",
        symbol="λ",
        ge=0,
        le=10000,
    )


def build(settings: FitnetSettings, _: Given) -> Recipe:
    """Make the one term: the squared difference after a 1x1 convolution.

    The paper trains up to a middle layer first and the rest afterwards; segmentation papers add the hint to the
    student's loss and take the last feature before the classifier. So do we.
    """
    from napari_kdseg.distillation.connectors import conv1x1
    from napari_kdseg.distillation.losses.fitnet import fitnet
    from napari_kdseg.distillation.losses.pairs import over_pairs

    term = Term(
        "fitnet",
        partial(over_pairs, fitnet),
        student_taps=settings.student_layers or ("@feature",),
        teacher_taps=settings.teacher_layers or ("@feature",),
        weight=settings.weight,
        connector=conv1x1,
    )
    return Recipe([term])


FITNET = Method(
    name="fitnet",
    title="FitNet",
    sentence="The student's last feature, through a 1x1 convolution, must equal the teacher's.",
    reference=(
        "Romero, Ballas, Kahou, Chassang, Gatta and Bengio: FitNets: Hints for Thin Deep Nets. ICLR 2015, "
        "arXiv 1412.6550"
    ),
    equation="L = mean (A f_S − f_T)²",
    scale="squares: mean over channels and pixels, in the square of the teacher's feature",
    settings_class=FitnetSettings,
    build=build,
    presets={"middle": {"student_layers": ("@middle",), "teacher_layers": ("@middle",)}},
    needs_features=True,
)
