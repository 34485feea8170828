"""MIMIC: the feature map itself is imitated (Li, Jin and Yan, CVPR 2017), as segmentation papers use it."""

from __future__ import annotations

from functools import partial

from napari_kdseg.distillation.declarations import Recipe, Term
from napari_kdseg.distillation.distiller import Given, Method
from napari_kdseg.distillation.settings import FeatureSettings
from napari_kdseg.settings import setting


class MimicSettings(FeatureSettings):
    """Constants of MIMIC."""

    weight: float = setting(
        5.0,
        "Distillation weight",
        "Weight of the imitation beside the segmentation loss; 5 is FitNet's 10 times the half in MIMIC's equation.",
        symbol="λ",
        ge=0,
        le=10000,
    )


def build(settings: MimicSettings, _: Given) -> Recipe:
    """Make the one term.

    Li et al. imitate a detector's features at its proposals, ``1/(2N) sum 1/m (A f_S - f_T)^2``. No paper prints
    the segmentation form of its tables; we take it to be the mean over the whole map, which is FitNet's loss with
    a weight of its own. That reading is background knowledge, not confirmed by a source.
    """
    from napari_kdseg.distillation.connectors import conv1x1
    from napari_kdseg.distillation.losses.fitnet import fitnet
    from napari_kdseg.distillation.losses.pairs import over_pairs

    term = Term(
        "mimic",
        partial(over_pairs, fitnet),
        student_taps=settings.student_layers or ("@feature",),
        teacher_taps=settings.teacher_layers or ("@feature",),
        weight=settings.weight,
        connector=conv1x1,
    )
    return Recipe([term])


MIMIC = Method(
    name="mimic",
    title="MIMIC",
    sentence="The student imitates the teacher's whole feature map; FitNet's loss with a weight of its own.",
    reference="Li, Jin and Yan: Mimicking Very Efficient Network for Object Detection. CVPR 2017",
    equation="L = mean (A f_S − f_T)², over whole maps",
    scale="squares: mean over channels and pixels, in the square of the teacher's feature",
    settings_class=MimicSettings,
    build=build,
    needs_features=True,
)
