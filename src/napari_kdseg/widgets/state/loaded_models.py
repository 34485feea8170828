"""Networks as the window knows them: read off a checkpoint or a run folder, described, and held against the slide."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from napari_kdseg.errors import KdsegError
from napari_kdseg.networks import NetworkSpec
from napari_kdseg.training import NetworkChoice
from napari_kdseg.widgets.state.background import in_background
from napari_kdseg.widgets.state.session import ROLE_TITLES, ROLES, LoadedModel, Session

CHECKPOINT_PATTERNS = "Checkpoints (*.safetensors *.pt *.pth *.ckpt *.bin *.onnx);;All files (*)"


def read_model(path: Path) -> LoadedModel:
    """Read the header of a checkpoint and count its parameters (off the GUI thread)."""
    from napari_kdseg.networks import count_parameters, load

    checkpoint = load(path)
    facts = getattr(checkpoint.module, "facts", None)  # of an ONNX file
    parameters = count_parameters(checkpoint.module) or (facts.parameters if facts else None)
    return LoadedModel(path, checkpoint.spec, parameters)


def adopt_weights(path: Path, spec: NetworkSpec, folder: Path) -> Path:
    """Keep weights of another program with what they are, as a checkpoint in ``folder`` (off the GUI thread).

    Raises
    ------
    KdsegError
        If they are not those of the network that ``spec`` describes.
    """
    from napari_kdseg.networks import load, save

    checkpoint = load(path, expect=spec)
    return save(folder / f"{path.stem}.safetensors", checkpoint.module, checkpoint.spec)


def code_to_allow(choices: Iterable[NetworkChoice]) -> list[str]:
    """Import paths of classes that a distillation would run and that nobody allowed yet (off the GUI thread)."""
    from napari_kdseg.networks.formats import read_spec, resolve
    from napari_kdseg.networks.permission import is_allowed
    from napari_kdseg.networks.spec import OWN_CODE

    needed = []
    for choice in choices:
        name = choice.architecture or ""
        if not name and choice.checkpoint is not None:
            with suppress(KdsegError):  # the run says what is wrong with the file
                spec = read_spec(resolve(choice.checkpoint))
                name = spec.architecture if spec else ""
        code = name.removeprefix(OWN_CODE)
        if name.startswith(OWN_CODE) and not is_allowed(code) and code not in needed:
            needed.append(code)
    return needed


def load_run(session: Session, folder: Path, on_failed: Any = None) -> None:
    """Load every network of a run folder into its card."""

    def work() -> dict[str, LoadedModel]:
        from napari_kdseg.errors import CheckpointError

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


def describe(model: LoadedModel) -> str:
    """The facts of a network in one or two lines."""
    spec = model.spec
    mpp = f"trained at {spec.mpp:g} µm per pixel" if spec.mpp else "no training scale recorded"
    scores = [f"validation Dice {spec.metrics['val_dice']:.3f}"] if "val_dice" in spec.metrics else []
    size = [f"{model.parameters / 1e6:.2f} M parameters"] if model.parameters else []
    return ", ".join([spec.architecture, *size, mpp, *scores])


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
