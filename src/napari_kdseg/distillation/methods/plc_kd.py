"""PLC-KD: progressively correcting soft labels via a teacher team (Wang et al., MICCAI 2024).

Three stages: the false-pixel-aware assistant, the boundary-aware assistant, and the student, who learns from
the soft labels the team has corrected (eq. 1). The variants are the rows of the paper's ablation, table 2.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from napari_kdseg.distillation.declarations import SOFT_LABELS, Recipe, Stage, Term
from napari_kdseg.distillation.distiller import Given, Method
from napari_kdseg.distillation.settings import PlcKdSettings


def build(settings: PlcKdSettings, given: Given) -> Recipe:
    """Build the stages of the assistants in use, and the term that reads what their team corrected."""
    from napari_kdseg.distillation.auxiliary.assistants import (
        BoundaryAssistantStage,
        FalsePixelAssistantStage,
        new_assistant,
    )
    from napari_kdseg.distillation.correction.teacher_team import TeacherTeam
    from napari_kdseg.distillation.losses.knowledge_distillation import soft_label_kl

    teacher, seed = given.teacher, given.seed
    stages: list[Stage] = []
    false_pixel_assistant = boundary_assistant = None
    if settings.use_false_pixel_assistant:
        false_pixel_assistant = new_assistant(teacher, settings, seed)
        stages.append(
            FalsePixelAssistantStage(
                teacher, false_pixel_assistant, settings, seed=seed, sample_masks=given.sample_masks
            )
        )
    if settings.use_boundary_assistant:
        boundary_assistant = new_assistant(teacher, settings, seed + 1)
        stages.append(BoundaryAssistantStage(boundary_assistant, settings, seed=seed))
    team = TeacherTeam(teacher, false_pixel_assistant, boundary_assistant, settings)
    term = Term(
        "kd",
        partial(soft_label_kl, temperature=settings.temperature),
        teacher_taps=(SOFT_LABELS,),
        weight=settings.kd_weight,
        team=team,
    )
    return Recipe([term], stages)


def _without(*parts: str) -> dict[str, bool]:
    return {f"use_{part}": False for part in parts}


PLC_KD = Method(
    name="plc-kd",
    title="PLC-KD",
    sentence="Assistants and a similarity search correct the teacher's soft labels before the student learns.",
    reference=(
        "Wang, Cao, Hou, Lan, Yang, Liu and Zaiane: Progressively Correcting Soft Labels via Teacher Team for "
        "Knowledge Distillation in Medical Image Segmentation. MICCAI 2024"
    ),
    equation="L = L_seg + λ τ² mean_px KL(P^U_τ ‖ softmax(z_S/τ)), P^U the teacher team's corrected soft label (eq. 1)",
    scale="KL: sum over classes, mean over pixels, times τ²",
    settings_class=PlcKdSettings,
    build=build,
    needs_labels=True,
    needs_segmenting_teacher=True,  # the assistants are copies of it
    presets={
        "vanilla": _without("false_pixel_assistant", "boundary_assistant", "similarity"),
        "sc": _without("false_pixel_assistant", "boundary_assistant"),
        "f": _without("boundary_assistant", "similarity"),
        "b": _without("false_pixel_assistant", "similarity"),
        "f+b": _without("similarity"),
        "f+sc": _without("boundary_assistant"),
        "b+sc": _without("false_pixel_assistant"),
    },
)

PLC_KD_PAPER = replace(
    PLC_KD,
    name="plc-kd-paper",
    title="PLC-KD, as printed",
    sentence="PLC-KD with all that its text fixes: the false-pixel-aware assistant sees false-pixel images only.",
    presets={},
    overrides={"real_fraction": 0.0},
)
