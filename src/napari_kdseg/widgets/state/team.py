"""The networks of a run folder, loaded together; and whether one of them fits the others and the slide."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from napari_kdseg.errors import CheckpointError
from napari_kdseg.widgets.state.background import in_background
from napari_kdseg.widgets.state.loaded_models import ROLE_TITLES, ROLES, LoadedModel, read_model
from napari_kdseg.widgets.state.session import Session


def load_run(session: Session, folder: Path, on_failed: Callable[[str], None] | None = None) -> None:
    """Load every network of a run folder into its card."""

    def work() -> dict[str, LoadedModel]:
        found = {role: folder / "checkpoints" / f"{role}.safetensors" for role in ROLES}
        models = {role: read_model(path) for role, path in found.items() if path.is_file()}
        if not models:
            raise CheckpointError(
                f"{folder.name} holds no checkpoints. A run folder has a folder 'checkpoints' with "
                "teacher.safetensors in it."
            )
        return models

    def show(models: dict[str, LoadedModel]) -> None:
        for role, model in models.items():
            session.set_model(role, model)

    in_background(work, show, on_failed)


def misfit(session: Session, role: str, model: LoadedModel) -> str:
    """What of this card does not fit the other cards or the slide, with the mend; empty when all fits."""
    for other_role, other in session.models.items():
        if other_role != role and len(other.spec.classes) != len(model.spec.classes):
            return (
                f"This checkpoint has {len(model.spec.classes)} classes, the {ROLE_TITLES[other_role].lower()} "
                f"card has {len(other.spec.classes)}. Choose another checkpoint for one of them."
            )
    slide = session.slide
    if slide is not None and not slide.brightfield and model.spec.in_channels == 3:
        return (
            "This network sees the three colours of a stained slide, but the slide is fluorescence. What it makes of "
            "it means nothing unless it was trained on such slides."
        )
    if slide is not None and slide.mpp is None and model.spec.mpp:
        return "The slide has no scale, so this network runs at level 0. Give the scale under 1 Slide to change that."
    if slide is not None and slide.mpp and not model.spec.mpp:
        return "This network does not say at which scale it was trained, so it runs at level 0."
    return ""
