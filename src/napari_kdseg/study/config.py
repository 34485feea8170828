"""What a study is told: a pydantic model, read from YAML, TOML or JSON.

Loads neither torch nor Qt.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from napari_kdseg.distillation import family_of, get_method
from napari_kdseg.errors import ConfigurationError, explain
from napari_kdseg.settings import setting
from napari_kdseg.training import DataConfig, NetworkChoice, OptimiserConfig, TrainingConfig

TEST_FRACTION = 0.2
"""Share of the tiles kept for the test where neither the data nor the configuration say which."""

SHARING = ("kd", "plc-kd", "plc-kd-paper")
"""Methods that take the study's temperature and weight, so that only the soft labels differ between them."""

LISTS = ("teachers", "students", "methods", "seeds", "label_fractions")
"""What a study may be given more of later; everything else stays as the first run found it."""

PLACES = ("output", "work", "device", "at_once", "threads", "keep_work")
"""What changes where a study runs, not what it finds."""

Share = Annotated[float, Field(gt=0.0, le=1.0)]


LATER = {"value_255": "auto"}
"""Settings of the data that came after studies were first kept, and what was done before there was a choice: at that
value they are no part of a protocol, so that it is the one of then."""


class StudyConfig(TrainingConfig):
    """A grid of distillations: every student with every method, share of the labels, teacher and seed."""

    task: str = setting(
        default="segmentation",
        min_length=1,
        title="Task",
        description="Name of the task in the table; studies of several tasks may share a folder.",
    )
    data: DataConfig = setting(
        title="Data",
        description="The annotated tiles. Where neither a manifest nor 'test_fraction' says which tiles are for the "
        f"test, {TEST_FRACTION:.0%} are kept for it.",
    )
    teachers: tuple[NetworkChoice, ...] = setting(
        default=(NetworkChoice(architecture="unet/resnet34"),),
        min_length=1,
        title="Teachers",
        description="Architectures, each trained once on all training tiles, or checkpoints.",
    )
    students: tuple[NetworkChoice, ...] = setting(
        default=(NetworkChoice(architecture="enet"),),
        min_length=1,
        title="Students",
        description="Architectures of the small networks.",
    )
    methods: tuple[str, ...] = setting(
        default=("alone", "kd", "plc-kd"),
        min_length=1,
        title="Methods",
        description="What is compared; 'kdseg methods' lists all, 'alone' is the student without a teacher.",
    )
    settings: dict[str, dict[str, Any]] = setting(
        default_factory=dict,
        title="Settings",
        description="Constants by method: {emkd: {region_weight: 0.5}}. Those of a method are also those of its "
        "variants, but for the constants in which the variant differs.",
    )
    temperature: float = setting(
        default=1.0, gt=0.0, le=100.0, title="Temperature", description="Of KD and PLC-KD alike."
    )
    kd_weight: float = setting(
        default=1.0, ge=0.0, title="Distillation weight", description="Of KD and PLC-KD alike."
    )
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = setting(
        default=(0, 1, 2),
        min_length=1,
        title="Seeds",
        description="Of weights, order, augmentation and of which tiles make up a share of the labels.",
    )
    label_fractions: tuple[Share, ...] = setting(
        default=(0.1,),
        min_length=1,
        title="Label fractions",
        description="Shares of the training tiles whose labels a student sees; a smaller one lies within a larger.",
    )
    steps: int = setting(
        default=800,
        ge=1,
        title="Steps",
        description="Of every student, rounded up to whole passes over its tiles.",
    )
    validations: int = setting(
        default=12,
        ge=1,
        title="Validations",
        description="About so many times during a training is a network scored; the best weights are kept.",
    )
    teacher_epochs: int = setting(
        default=20, ge=1, title="Epochs of a teacher", description="At most; see the patience."
    )
    teacher_patience: int = setting(
        default=0,
        ge=0,
        title="Patience of a teacher",
        description="Stop a teacher after so many epochs without a better validation Dice. 0: never.",
    )
    teacher_validations: int = setting(
        default=20, ge=1, title="Validations of a teacher", description="As of a student."
    )
    teacher_optimiser: OptimiserConfig | None = setting(
        default=None, title="Optimiser of a teacher", description="Default: that of the students."
    )
    sampling: Literal["all", "balanced", "lesion"] = setting(
        default="balanced",
        title="Sampling",
        description="Which tiles come how often, for teacher and students alike; see 'kdseg distill'.",
    )
    at_once: int | None = setting(
        default=None,
        ge=1,
        title="Runs at once",
        description="Runs at the same time, each in a process of its own. Default: as many as there are GPUs, or one.",
    )
    limit: int | None = setting(
        default=None, ge=1, exclude=True, title="Limit", description="Stop after so many runs; go on later."
    )
    keep_work: bool = setting(
        default=True,
        title="Keep the networks",
        description="Keep teachers, assistants and students; 'kdseg evidence --why' reads them.",
    )
    output: Path = setting(
        default=Path("study"),
        title="Folder",
        description="Folder of the table and the report; the same one again goes on.",
    )
    work: Path | None = setting(
        default=None, title="Work folder", description="Of the networks. Default: 'work' in the folder."
    )

    @field_validator("teachers", "students", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """Take an architecture as it is written, and a single network without a list."""
        several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        return [{"architecture": one} if isinstance(one, str) else one for one in several]

    @field_validator("data", mode="before")
    @classmethod
    def _with_a_test(cls, value: Any) -> Any:
        return {"test_fraction": TEST_FRACTION, **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _consistent(self) -> StudyConfig:
        for name in LISTS:
            values = getattr(self, name)
            doubles = sorted({str(value) for value in values if values.count(value) > 1})
            if doubles:
                raise ValueError(f"'{name}' holds {', '.join(doubles)} twice; keep one")
        for method in self.methods:
            if get_method(method).teachers > 1:
                raise ValueError(
                    f"{method} learns from several teachers at once, which a study does not do yet"
                )
            self.settings_of(method)
        for method, values in self.settings.items():
            get_method(method).settings(values)
        return self

    def settings_of(self, method: str) -> dict[str, Any]:
        """Return the constants that ``method`` is given: the study's, its family's but for the variant's, its own."""
        base = family_of(method)
        family = dict(self.settings.get(base, {}))
        if base in SHARING:
            family = {"temperature": self.temperature, "kd_weight": self.kd_weight} | family
        of_family, of_variant = get_method(base).overrides, get_method(method).overrides
        differs = {name for name, value in of_variant.items() if (name, value) not in of_family.items()}
        values = {name: value for name, value in family.items() if name not in differs}
        if base != method:
            values |= self.settings.get(method, {})
        get_method(method).settings(values)
        return values

    @property
    def work_folder(self) -> Path:
        """Folder of the networks."""
        return self.output / "work" if self.work is None else self.work

    def protocol(self) -> dict[str, Any]:
        """Return what decides the figures, without places on this computer: what all runs of a task share."""
        values = self.model_dump(mode="json", exclude={*LISTS, *PLACES})
        values["data"] |= {"folder": self.data.folder.name, "manifest": None}
        values["data"] = {
            name: value for name, value in values["data"].items() if (name, value) not in LATER.items()
        }
        return values

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> StudyConfig:
        """Read a study from a YAML, TOML or JSON file; relative paths in it start from the file's folder.

        Raises
        ------
        ConfigurationError
            If the file cannot be read, is none of these, or its settings do not work.
        """
        path = Path(path)
        values = _read(path)
        try:
            return cls.model_validate(values).anchored(path.resolve().parent)
        except (ValidationError, ConfigurationError) as error:
            raise ConfigurationError(f"{path.name}: {explain(error)}") from error

    def anchored(self, folder: Path) -> StudyConfig:
        """Return a copy whose relative paths start from ``folder``."""

        def anchor(path: Path) -> Path:
            return Path(os.path.abspath(folder / path.expanduser()))

        copy = self.model_copy(deep=True)
        copy.data.folder = anchor(self.data.folder)
        copy.data.manifest = None if self.data.manifest is None else anchor(self.data.manifest)
        for network in (*copy.teachers, *copy.students):
            network.checkpoint = None if network.checkpoint is None else anchor(network.checkpoint)
        copy.output = anchor(self.output)
        copy.work = None if self.work is None else anchor(self.work)
        return copy


def _read(path: Path) -> dict[str, Any]:
    readers: dict[str, Any] = {
        ".yaml": yaml.safe_load,
        ".yml": yaml.safe_load,
        ".toml": tomllib.loads,
        ".json": json.loads,
    }
    if path.suffix.lower() not in readers:
        raise ConfigurationError(
            f"{path.name} is no configuration of a study. Save it as .yaml, .toml or .json."
        )
    try:
        values = readers[path.suffix.lower()](path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"The study cannot be read. {explain(error)}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path.name} cannot be understood ({error}). Correct it.") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path.name} holds no settings by name. Begin with 'data:' and its folder.")
    return values
