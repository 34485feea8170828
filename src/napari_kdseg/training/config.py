"""What a distillation is told: pydantic models that the window, the command line and the run folder share.

A configuration is one JSON file. Whoever wrote it, the window or a person, it runs the same way from either.
Loads neither torch nor Qt.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError, field_validator, model_validator

from napari_kdseg.distillation import get_method
from napari_kdseg.errors import ConfigurationError, OutputError, explain
from napari_kdseg.files import write_whole
from napari_kdseg.settings import setting
from napari_kdseg.training.settings import NetworkChoice, TrainingConfig

RUN_ONLY = ("output", "device", "threads", "previews", "trained_stages", "memory", "report")
"""Fields that may differ when a run is resumed: they change where it runs, not what it computes."""


class DistillConfig(TrainingConfig):
    """Everything a distillation needs to run, and to run again."""

    teacher: NetworkChoice = setting(
        default_factory=lambda: NetworkChoice(architecture="unet/resnet18"),
        title="Teacher",
        description="The large network. Without a checkpoint it is trained first.",
    )
    student: NetworkChoice = setting(
        default_factory=lambda: NetworkChoice(architecture="enet"),
        title="Student",
        description="The small network that learns from it.",
    )
    more_teachers: tuple[NetworkChoice, ...] = setting(
        default=(),
        title="Further teachers",
        description="The second teacher, the third and so on, for methods such as 'kd+cwd@2'.",
    )
    method: str = setting(
        default="plc-kd",
        title="Method",
        description="Name of the distillation method; 'kdseg methods' lists all. Methods add up: 'cwd+kd'; '@2' lets "
        "one learn from the second teacher: 'kd+cwd@2'.",
    )
    settings: dict[str, Any] = setting(
        default_factory=dict, title="Settings", description="Constants of the method, by name."
    )
    teacher_epochs: int = setting(
        default=2,
        ge=1,
        title="Epochs of the teacher",
        description="If it has to be trained. Few suffice with a thousand tiles or more; take 20 to 100 with fewer "
        "tiles, or with a GPU.",
    )
    epochs: int = setting(
        default=2,
        ge=1,
        title="Epochs",
        description="Of the student; the assistants of a method take a share of it. Few suffice with a thousand "
        "tiles or more; take 20 to 100 with fewer tiles, or with a GPU.",
    )
    validate_every: int = setting(
        default=1,
        ge=1,
        title="Epochs between validations",
        description="Score the network, and note where the run stands, after every so many epochs and after the last "
        "one. More than 1 saves time where an epoch is short.",
    )
    patience: int = setting(
        default=0,
        ge=0,
        title="Patience",
        description="Stop teacher and student early after so many epochs without a better validation Dice. 0: never.",
    )
    weigh_classes: bool = setting(
        default=False,
        title="Weigh classes",
        description="Let rare classes count more in the cross entropy (median frequency balancing), unless the "
        "method's constants name class weights.",
    )
    memory: Path | None = setting(
        default=None,
        title="Memory of the teacher",
        description="Folder of what is remembered of teachers, shared by all runs that name it; it is kept when a "
        "run ends. Default: in the run folder, taken away in the end.",
    )
    trained_stages: dict[str, Path] = setting(
        default_factory=dict,
        title="Stages trained before",
        description="Weights of stages before the student, by name (false_pixel_assistant, paraphraser ...), as "
        "another run left them: those stages are not trained again.",
    )
    seed: int = setting(default=0, ge=0, title="Seed", description="Of weights, order and augmentation.")
    deterministic: bool = setting(
        default=False,
        title="Deterministic",
        description="Use algorithms that give the same figures every time also on a GPU, where there are any; slower.",
    )
    output: Path = setting(
        default=Path("run"),
        title="Run folder",
        description="Run folder: a new one; the same one again resumes the run.",
    )
    previews: bool = setting(
        default=True,
        title="Previews",
        description="Save one validation tile an epoch as a picture: image, annotation and prediction.",
    )
    report: Literal["full", "student"] = setting(
        default="full",
        title="Report",
        description="'full': every network is scored in the end, also its contours and calibration. 'student': the "
        "overlap of the student alone, which takes far less time.",
    )

    @field_validator("settings", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return value.model_dump(mode="json") if isinstance(value, BaseModel) else value

    @model_validator(mode="after")
    def _settings_of_the_method(self) -> DistillConfig:
        method = get_method(self.method)
        method.settings(self.settings)
        if self.student.is_encoder:
            raise ValueError(
                f"{self.student.architecture} puts out features, not classes, so it cannot be the student; it can teach"
            )
        given = 1 + len(self.more_teachers)
        if method.teachers > given:
            raise ValueError(
                f"the method {self.method} learns from {method.teachers} teachers, but there "
                f"{'is one' if given == 1 else f'are {given}'}; add further teachers, or leave out '@{method.teachers}'"
            )
        return self

    @property
    def teachers(self) -> dict[str, NetworkChoice]:
        """The teachers the method learns from, by the name of their files."""
        choices = (self.teacher, *self.more_teachers)[: get_method(self.method).teachers]
        return {f"teacher_{n}" if n > 1 else "teacher": choice for n, choice in enumerate(choices, start=1)}

    def resolved(self) -> DistillConfig:
        """Return a copy with absolute paths that names every constant, also those left at their defaults."""
        copy = self._anchored(Path.cwd())
        copy.settings = get_method(self.method).settings(self.settings).model_dump(mode="json")
        return copy

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DistillConfig:
        """Read a configuration from its JSON file.

        Relative paths in it start from the folder of the file, so that a study can be moved as a whole.

        Raises
        ------
        ConfigurationError
            If the file cannot be read, is no JSON, or its settings do not work.
        """
        path = Path(path)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(f"The configuration cannot be read. {explain(error)}") from error
        except ValueError as error:
            raise ConfigurationError(
                f"{path.name} is not a JSON file ({error}). Save the configuration again."
            ) from error
        try:
            return cls.model_validate(values)._anchored(path.resolve().parent)
        except ValidationError as error:
            raise ConfigurationError(f"{path.name}: {explain(error)}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the configuration as JSON with absolute paths, so that it runs from anywhere on this machine.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        path = Path(path)
        text = self._anchored(Path.cwd()).model_dump_json(indent=2)
        try:
            write_whole(path, (text + "\n").encode())
        except OSError as error:
            raise OutputError(f"The configuration could not be saved. {explain(error)}") from error

    def differences(self, other: DistillConfig) -> list[str]:
        """Names of the settings by which ``other`` would compute something else."""
        mine, theirs = (config.resolved().model_dump(mode="json") for config in (self, other))
        return [name for name in mine if name not in RUN_ONLY and mine[name] != theirs[name]]

    def _anchored(self, folder: Path) -> DistillConfig:
        """Return a copy whose relative paths start from ``folder``."""

        def anchor(path: Path | None) -> Path | None:
            return None if path is None else Path(os.path.abspath(folder / path.expanduser()))

        copy = self.model_copy(deep=True)
        copy.data.folder = anchor(self.data.folder) or folder
        copy.data.manifest = anchor(self.data.manifest)
        for network in (copy.teacher, *copy.more_teachers, copy.student):
            network.checkpoint = anchor(network.checkpoint)
            network.encoder_weights = anchor(network.encoder_weights)
        copy.output = anchor(self.output) or folder
        copy.memory = anchor(self.memory)
        copy.trained_stages = {name: anchor(path) or folder for name, path in self.trained_stages.items()}
        return copy
