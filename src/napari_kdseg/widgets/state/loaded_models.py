"""Networks as the window knows them: read off a checkpoint, kept, described."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from napari_kdseg.errors import KdsegError
from napari_kdseg.networks import NetworkSpec
from napari_kdseg.networks.checkpoints.formats import SUFFIXES
from napari_kdseg.training import NetworkChoice

ROLES = ("teacher", "false_pixel_assistant", "boundary_assistant", "student")
ROLE_TITLES = {
    "teacher": "Teacher",
    "false_pixel_assistant": "False-pixel-aware assistant",
    "boundary_assistant": "Boundary-aware assistant",
    "student": "Student",
}
CHECKPOINT_PATTERNS = f"Checkpoints ({' '.join(f'*{suffix}' for suffix in SUFFIXES)});;All files (*)"


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint chosen for a role: where it is, what its header says, its size if known, what was decided of it."""

    path: Path
    spec: NetworkSpec
    parameters: int | None
    notes: tuple[str, ...] = ()


def read_model(path: Path) -> LoadedModel:
    """Read the header of a checkpoint and count its parameters (off the GUI thread)."""
    from napari_kdseg.inference.network.header import read_header

    header = read_header(path)
    return LoadedModel(path, header.spec, header.parameters, header.notes)


def adopt_weights(path: Path, spec: NetworkSpec, folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Keep weights of another program with what they are, as a checkpoint in ``folder`` (off the GUI thread).

    Returns
    -------
    Path, tuple of str
        The checkpoint, and what was decided of what the file holds.

    Raises
    ------
    KdsegError
        If they are not those of the network that ``spec`` describes.
    """
    from napari_kdseg.networks import load, save

    checkpoint = load(path, expect=spec)
    return save(folder / f"{path.stem}.safetensors", checkpoint.module, checkpoint.spec), checkpoint.notes


def code_to_allow(choices: Iterable[NetworkChoice]) -> list[str]:
    """Import paths of classes that a distillation would run and that nobody allowed yet (off the GUI thread)."""
    from napari_kdseg.networks.checkpoints.formats import read_spec, resolve
    from napari_kdseg.networks.foreign.permission import is_allowed
    from napari_kdseg.networks.spec import OWN_CODE, is_own_code

    needed = []
    for choice in choices:
        name = (choice.architecture or "").strip()
        if not name and choice.checkpoint is not None:
            with suppress(KdsegError):  # the run says what is wrong with the file
                spec = read_spec(resolve(choice.checkpoint))
                name = spec.architecture if spec else ""
        code = name.removeprefix(OWN_CODE)
        if is_own_code(name) and not is_allowed(code) and code not in needed:
            needed.append(code)
    return needed


def describe(model: LoadedModel) -> str:
    """The facts of a network in one or two lines, and what was decided of its file."""
    spec = model.spec
    mpp = f"trained at {spec.mpp:g} µm per pixel" if spec.mpp else "no training scale recorded"
    scores = [f"validation Dice {spec.metrics['val_dice']:.3f}"] if "val_dice" in spec.metrics else []
    size = [f"{model.parameters / 1e6:.2f} M parameters"] if model.parameters else []
    return "\n".join([", ".join([spec.architecture, *size, mpp, *scores]), *model.notes])
