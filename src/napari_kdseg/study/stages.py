"""Stages that several runs have in common, known by all that their training reads, so that one of them trains it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_kdseg.distillation import family_of, get_method
from napari_kdseg.distillation.settings import AloneSettings
from napari_kdseg.study.config import StudyConfig
from napari_kdseg.study.plan import TEACHER, Places, Run, network_name, slug, teacher_run


@dataclass(frozen=True)
class SharedStage:
    """A stage before the student's that may be taken from another run.

    Attributes
    ----------
    settings
        Constants of the method that its training reads, beside those of the segmentation loss.
    switch
        Constant that must be true, or not 0, for the stage to be there.
    of_student
        Whether it depends on the student's architecture.
    """

    settings: tuple[str, ...]
    switch: str
    of_student: bool


SHARED: dict[str, dict[str, SharedStage]] = {
    "plc-kd": {
        "false_pixel_assistant": SharedStage(
            (
                "initialise", "assistant_learning_rate_factor", "assistant_epochs_factor", "queue_length",
                "pixels_per_image", "warm_up_epochs", "real_fraction",
            ),
            "use_false_pixel_assistant",
            of_student=False,
        ),
        "boundary_assistant": SharedStage(
            (
                "initialise", "assistant_learning_rate_factor", "assistant_epochs_factor", "boundary_width",
                "boundary_start", "swap_fraction", "boundary_real_fraction",
            ),
            "use_boundary_assistant",
            of_student=False,
        ),
    },
    "coco": {
        "paraphraser": SharedStage(
            ("student_layers", "teacher_layers", "final_activation", "paraphraser_epochs_factor"),
            "use_paraphraser",
            of_student=True,
        ),
        "critic": SharedStage(
            ("condition_on_image", "critic_attention", "gradient_penalty", "critic_epochs_factor"),
            "adversarial_weight",
            of_student=True,
        ),
    },
}  # fmt: skip
"""By method. A stage that is not here is trained in every run that needs it."""
SHARED["plc-kd-paper"] = SHARED["plc-kd"]

LATER = {"segmentation_loss": "ce+dice", "boundary_start": "edge"}
"""Constants that came after studies were first kept, and what was done before there was a choice: at that value they
are no part of a key, so that stages of then are found."""

FORMS = {"critic": "penalty of the sum over patches"}
"""How a stage is trained now that was trained otherwise once, by its name: those of then are not taken."""


def shared_stages(config: StudyConfig, run: Run) -> dict[str, str]:
    """Return the stages of a run that other runs may have trained, with a key of all that they depend on."""
    stages = SHARED.get(family_of(run.method), {})
    if not stages:
        return {}
    settings = get_method(run.method).settings(config.settings_of(run.method)).model_dump(mode="json")
    if settings.get("transfer", "correlation") != "correlation":
        settings["use_paraphraser"] = False
    return {
        name: _key(config, run, name, stage, settings)
        for name, stage in stages.items()
        if settings[stage.switch]
    }


def shared_networks(config: StudyConfig, run: Run, places: Places) -> dict[str, Path]:
    """Return where the networks of a run lie that other runs have too, by their names in its folder.

    A teacher that was given is kept as a copy: its file is the user's, and may change.
    """
    networks = {name: places.stage(key) for name, key in shared_stages(config, run).items()}
    if run.teacher and run.method != TEACHER:
        choice = next(teacher for teacher in config.teachers if network_name(teacher) == run.teacher)
        trained = places.network(teacher_run(config, choice))
        networks["teacher"] = places.stage(f"teacher-{slug(run.teacher)}") if choice.checkpoint else trained
    return networks


def _key(config: StudyConfig, run: Run, name: str, stage: SharedStage, settings: dict[str, Any]) -> str:
    constants = (*AloneSettings.model_fields, *stage.settings)
    read = {each: settings[each] for each in constants if each not in LATER or settings[each] != LATER[each]}
    known = {
        "task": run.task,
        "stage": name,
        "teacher": run.teacher,
        "student": run.student if stage.of_student else "",
        "label_fraction": run.label_fraction,
        "seed": run.seed,
        "settings": read,
        "protocol": config.protocol() | {"settings": {}, "temperature": 0, "kd_weight": 0},
        **({"form": FORMS[name]} if name in FORMS else {}),
    }
    digest = hashlib.blake2b(json.dumps(known, sort_keys=True).encode(), digest_size=8).hexdigest()
    return f"{name}-{run.label_fraction:g}-{run.seed}-{digest}"
