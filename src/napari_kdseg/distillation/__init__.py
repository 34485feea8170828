"""Knowledge distillation in plain PyTorch: losses, PLC-KD's correction of soft labels, and methods made of them.

No files and no window. Settings and the list of methods load without torch; what computes is imported when
first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_kdseg.distillation.declarations import IMAGE, LOGITS, SOFT_LABELS, Recipe, Stage, Term
from napari_kdseg.distillation.distiller import Method
from napari_kdseg.distillation.methods import METHODS, family_of, get_method, method_names
from napari_kdseg.distillation.settings import AloneSettings, FeatureSettings, KdSettings, PlcKdSettings

if TYPE_CHECKING:
    from napari_kdseg.distillation.auxiliary.assistants import (
        BoundaryAssistantStage,
        FalsePixelAssistantStage,
    )
    from napari_kdseg.distillation.correction.boundary import boundary_transform
    from napari_kdseg.distillation.correction.false_pixels import FalsePixelQueues, false_pixel_images
    from napari_kdseg.distillation.correction.similarity import similarity_correction
    from napari_kdseg.distillation.correction.teacher_team import (
        Correction,
        CorrectionCounts,
        TeacherTeam,
        run_frozen,
    )
    from napari_kdseg.distillation.losses.common import at_size
    from napari_kdseg.distillation.losses.knowledge_distillation import kd, soft_label_kl
    from napari_kdseg.distillation.losses.segmentation import cross_entropy_dice
    from napari_kdseg.distillation.stages import StudentStage, freeze
    from napari_kdseg.distillation.view import View

_WITH_TORCH = {
    "BoundaryAssistantStage": "auxiliary.assistants",
    "Correction": "correction.teacher_team",
    "CorrectionCounts": "correction.teacher_team",
    "FalsePixelAssistantStage": "auxiliary.assistants",
    "FalsePixelQueues": "correction.false_pixels",
    "StudentStage": "stages",
    "TeacherTeam": "correction.teacher_team",
    "View": "view",
    "run_frozen": "correction.teacher_team",
    "at_size": "losses.common",
    "boundary_transform": "correction.boundary",
    "cross_entropy_dice": "losses.segmentation",
    "false_pixel_images": "correction.false_pixels",
    "freeze": "stages",
    "kd": "losses.knowledge_distillation",
    "similarity_correction": "correction.similarity",
    "soft_label_kl": "losses.knowledge_distillation",
}


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WITH_TORCH})


__all__ = [
    "IMAGE",
    "LOGITS",
    "METHODS",
    "SOFT_LABELS",
    "AloneSettings",
    "BoundaryAssistantStage",
    "Correction",
    "CorrectionCounts",
    "FalsePixelAssistantStage",
    "FalsePixelQueues",
    "FeatureSettings",
    "KdSettings",
    "Method",
    "PlcKdSettings",
    "Recipe",
    "Stage",
    "StudentStage",
    "TeacherTeam",
    "Term",
    "View",
    "at_size",
    "boundary_transform",
    "cross_entropy_dice",
    "false_pixel_images",
    "family_of",
    "freeze",
    "get_method",
    "kd",
    "method_names",
    "run_frozen",
    "similarity_correction",
    "soft_label_kl",
]
