"""What a distillation is told: pydantic models that the window, the command line and the run folder share.

A configuration is one JSON file. Whoever wrote it, the window or a person, it runs the same way from either.
Loads neither torch nor Qt.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from napari_kdseg.distillation import get_method
from napari_kdseg.errors import ConfigurationError, OutputError, explain
from napari_kdseg.networks.spec import ENCODER

RUN_ONLY = ("output", "device", "threads", "previews", "trained_stages", "memory", "report")
"""Fields that may differ when a run is resumed: they change where it runs, not what it computes."""

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class DataConfig(_Settings):
    """Where the annotated tiles lie, what their masks mean, and how they are divided."""

    folder: Path = Field(
        title="Folder",
        description="Folder that holds the images, the masks and, if there is one, manifest.csv.",
    )
    images: str = Field(
        default="images", title="Images", description="Subfolder of the images (PNG, TIFF or JPEG)."
    )
    masks: str = Field(
        default="masks",
        title="Masks",
        description="Subfolder of the masks; a mask has the stem of its image.",
    )
    manifest: Path | None = Field(
        default=None,
        title="Manifest",
        description="CSV with a column 'tile' and, as far as known, 'split' (train, val, test), 'patient', "
        "'class_index', 'class'. Default: manifest.csv in the folder, if it is there.",
    )
    classes: tuple[str, ...] | None = Field(
        default=None,
        title="Classes",
        description="Names of the classes, background first. Default: from classes.txt or the data.",
    )
    labels: Literal["mask", "class_index"] = Field(
        default="mask",
        title="Labels",
        description="'mask': the values of the masks are the classes (0 background, 255 ignored; masks of only "
        "0 and 255 mean class 1). 'class_index': the foreground of a tile takes the class_index that the "
        "manifest gives the tile.",
    )
    input_size: int = Field(
        default=96,
        ge=32,
        le=4096,
        title="Input size (pixels)",
        description="Side of the square that networks are trained on. The shorter side of a tile is resized to "
        "it, the longer one cropped. 96 suits a computer without a GPU, 224 to 512 one that has it.",
    )
    validation_fraction: Fraction = Field(
        default=0.15,
        gt=0.0,
        title="Validation fraction",
        description="Share of the tiles kept for validation, where no split is given.",
    )
    test_fraction: Fraction = Field(
        default=0.0,
        title="Test fraction",
        description="Share of the tiles kept for the final test, where no split is given.",
    )
    mpp: float | None = Field(
        default=None,
        gt=0.0,
        title="Micrometres per pixel",
        description="Scale of the tiles as they are stored. Default: column 'mpp' of the manifest.",
    )
    limit: int | None = Field(
        default=None,
        ge=2,
        title="Tiles per split",
        description="At most so many tiles of each split: for a quick trial.",
    )
    seed: int = Field(
        default=0,
        ge=0,
        title="Seed of the split",
        description="The same seed divides the same tiles the same way.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> DataConfig:
        if self.validation_fraction + self.test_fraction > 0.9:
            raise ValueError("validation and test take more than 90 % of the tiles; leave more for training")
        if self.classes is not None and (len(self.classes) < 2 or len(set(self.classes)) < len(self.classes)):
            raise ValueError("give at least two different class names, background first")
        if self.classes is not None and len(self.classes) > 255:
            raise ValueError("at most 255 classes fit into a mask, because 255 means 'ignored'")
        return self


class NetworkChoice(_Settings):
    """A network by its architecture, or by a checkpoint that says everything itself."""

    architecture: str | None = Field(
        default=None,
        title="Architecture",
        description="Such as 'unet/resnet34' or 'enet'; 'kdseg networks' lists all.",
    )
    checkpoint: Path | None = Field(
        default=None,
        title="Checkpoint",
        description="Trained weights. A teacher with a checkpoint is not trained again.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        title="Options",
        description="Passed on to the architecture, such as its depth or width.",
    )
    encoder_weights: Path | None = Field(
        default=None,
        title="Encoder weights",
        description="Pretrained weights of the encoder alone, a file of torchvision, timm or "
        "segmentation-models-pytorch; the rest starts at random.",
    )
    new_head: bool = Field(
        default=False,
        title="New head for other classes",
        description="Where the checkpoint has another number of classes than the data, put a new last layer on it. "
        "A teacher is then trained.",
    )
    mean: tuple[float, ...] | None = Field(
        default=None,
        title="Mean",
        description="Of each channel, of values from 0 to 1, where the checkpoint does not say. Default: ImageNet's.",
    )
    std: tuple[float, ...] | None = Field(
        default=None,
        title="Standard deviation",
        description="Of each channel, of values from 0 to 1, where the checkpoint does not say. Default: ImageNet's.",
    )
    multiple: int | None = Field(
        default=None,
        ge=1,
        title="Sides are multiples of",
        description="Of a network of your own: what height and width of an image must be a multiple of. Default: 32.",
    )
    input_size: int | None = Field(
        default=None,
        ge=14,
        le=4096,
        title="Input size (pixels)",
        description="Side of the square that this network sees, if not that of the data: a teacher may look at the "
        "same tiles twice as sharply as its student.",
    )

    @model_validator(mode="after")
    def _named(self) -> NetworkChoice:
        if self.architecture is None and self.checkpoint is None:
            raise ValueError("name an architecture or give a checkpoint")
        if self.is_encoder and self.checkpoint is None:
            raise ValueError(
                f"{self.architecture} teaches nothing without its weights; give the file you have of its authors as "
                "checkpoint"
            )
        return self

    @property
    def is_encoder(self) -> bool:
        """Whether it is a foundation encoder, which puts out features and no classes."""
        return (self.architecture or "").strip().lower().startswith(ENCODER)


class OptimiserConfig(_Settings):
    """How weights are stepped; the default is AdamW with a polynomial decay, as in most segmentation papers."""

    name: Literal["adamw", "sgd", "adam"] = Field(
        default="adamw",
        title="Optimiser",
        description="AdamW, stochastic gradient descent with momentum, or Adam.",
    )
    learning_rate: float = Field(
        default=2e-3,
        gt=0.0,
        title="Learning rate",
        description="At the first step of a stage, or after the warm-up. 0.01 suits SGD.",
    )
    weight_decay: float = Field(
        default=1e-4,
        ge=0.0,
        title="Weight decay",
        description="Of the optimiser; apart from the gradient in AdamW.",
    )
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0, title="Momentum", description="Of SGD.")
    nesterov: bool = Field(default=False, title="Nesterov", description="Nesterov's momentum, in SGD.")
    schedule: Literal["poly", "cosine", "constant"] = Field(
        default="poly",
        title="Schedule",
        description="How the learning rate falls over the steps of a stage.",
    )
    poly_power: float = Field(
        default=0.9,
        ge=0.0,
        title="Decay power",
        description="In 'poly' the rate is multiplied by (1 - step / steps) to this power.",
    )
    warm_up: float = Field(
        default=0.0,
        ge=0.0,
        title="Warm-up",
        description="Steps over which the rate rises to its full value; below 1: a share of the steps of a stage.",
    )
    clip: float = Field(
        default=1.0, gt=0.0, title="Gradient clip", description="Largest norm of the gradient of one step."
    )
    ema: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        title="Average of the weights",
        description="Decay of an exponential moving average of the weights, which is then scored and kept in their "
        "place: 0.999 suits thousands of steps. 0: none.",
    )

    @model_validator(mode="after")
    def _momentum(self) -> OptimiserConfig:
        if self.nesterov and self.momentum == 0:
            raise ValueError("Nesterov's momentum needs a momentum above 0, such as 0.9")
        return self


class AugmentationConfig(_Settings):
    """What a training tile may look like beside what it is; the defaults suit haematoxylin and eosin."""

    flips: bool = Field(default=True, title="Flips", description="Mirror half of the tiles.")
    turns: bool = Field(
        default=True, title="Quarter turns", description="Turn tiles by 0, 90, 180 or 270 degrees."
    )
    stain_probability: Probability = Field(
        default=1.0, title="Stain: how often", description="Share of the tiles that are stained differently."
    )
    stain: float = Field(
        default=0.05,
        ge=0.0,
        lt=1.0,
        title="Stain: strength",
        description="Haematoxylin, eosin and DAB are each multiplied by 1 plus or minus at most this. 0.05 is called "
        "HED-light by Tellez et al. (2018), 0.2 HED-strong.",
    )
    stain_shift: float = Field(
        default=0.02,
        ge=0.0,
        le=1.0,
        title="Stain: shift",
        description="Each stain is shifted by at most this, in optical density (natural logarithm).",
    )
    light_probability: Probability = Field(
        default=0.3,
        title="Light: how often",
        description="Share of the tiles whose brightness and contrast are changed.",
    )
    brightness: float = Field(
        default=0.05,
        ge=0.0,
        le=1.0,
        title="Brightness",
        description="At most so much of the full range is added or taken away.",
    )
    contrast: float = Field(
        default=0.1,
        ge=0.0,
        lt=1.0,
        title="Contrast",
        description="Values are stretched around their mean by 1 plus or minus at most this.",
    )
    blur_probability: Probability = Field(
        default=0.1, title="Blur: how often", description="Share of the tiles that are out of focus."
    )
    blur: float = Field(
        default=1.0,
        ge=0.0,
        le=20.0,
        title="Blur: strength",
        description="Largest standard deviation of the Gaussian blur, in pixels of the input.",
    )
    scale_probability: Probability = Field(
        default=0.3, title="Scale: how often", description="Share of the tiles that are enlarged or reduced."
    )
    scale: float = Field(
        default=0.2,
        ge=0.0,
        le=3.0,
        title="Scale: strength",
        description="Tiles are enlarged or reduced by a factor of at most 1 plus this.",
    )


class DistillConfig(_Settings):
    """Everything a distillation needs to run, and to run again."""

    data: DataConfig = Field(title="Data")
    teacher: NetworkChoice = Field(
        default_factory=lambda: NetworkChoice(architecture="unet/resnet18"),
        title="Teacher",
        description="The large network. Without a checkpoint it is trained first.",
    )
    student: NetworkChoice = Field(
        default_factory=lambda: NetworkChoice(architecture="enet"),
        title="Student",
        description="The small network that learns from it.",
    )
    more_teachers: tuple[NetworkChoice, ...] = Field(
        default=(),
        title="Further teachers",
        description="The second teacher, the third and so on, for methods such as 'kd+cwd@2'.",
    )
    method: str = Field(
        default="plc-kd",
        title="Method",
        description="Name of the distillation method; 'kdseg methods' lists all. Methods add up: 'cwd+kd'; '@2' lets "
        "one learn from the second teacher: 'kd+cwd@2'.",
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, title="Settings", description="Constants of the method, by name."
    )
    teacher_epochs: int = Field(
        default=2,
        ge=1,
        title="Epochs of the teacher",
        description="If it has to be trained. Few suffice with a thousand tiles or more; take 20 to 100 with fewer "
        "tiles, or with a GPU.",
    )
    epochs: int = Field(
        default=2,
        ge=1,
        title="Epochs",
        description="Of the student; the assistants of a method take a share of it. Few suffice with a thousand "
        "tiles or more; take 20 to 100 with fewer tiles, or with a GPU.",
    )
    batch_size: int = Field(
        default=16, ge=2, title="Batch size", description="Tiles per step; halve it when memory runs out."
    )
    optimiser: OptimiserConfig = Field(default_factory=OptimiserConfig, title="Optimiser")
    augment: bool = Field(
        default=True,
        title="Augment",
        description="Flips, quarter turns, and light changes of stain, brightness, focus and scale.",
    )
    augmentation: AugmentationConfig = Field(
        default_factory=AugmentationConfig,
        title="Augmentation",
        description="Which changes, how often and how much. May also be given as 'augment'.",
    )
    validate_every: int = Field(
        default=1,
        ge=1,
        title="Epochs between validations",
        description="Score the network, and note where the run stands, after every so many epochs and after the last "
        "one. More than 1 saves time where an epoch is short.",
    )
    patience: int = Field(
        default=0,
        ge=0,
        title="Patience",
        description="Stop teacher and student early after so many epochs without a better validation Dice. 0: never.",
    )
    sampling: Literal["all", "balanced", "lesion"] = Field(
        default="all",
        title="Sampling",
        description="'all': every tile once an epoch. 'balanced': tiles of rare classes more often, so that all "
        "classes come alike. 'lesion': at least half of the tiles drawn show foreground.",
    )
    weigh_classes: bool = Field(
        default=False,
        title="Weigh classes",
        description="Let rare classes count more in the cross entropy (median frequency balancing), unless the "
        "method's constants name class weights.",
    )
    remember_teacher: bool = Field(
        default=False,
        title="Remember the teacher",
        description="Keep on disk what teacher and assistants put out, so that they see each tile once, not in every "
        "epoch. Works without augmentation, or with flips and quarter turns alone; takes disk space meanwhile.",
    )
    memory: Path | None = Field(
        default=None,
        title="Memory of the teacher",
        description="Folder of what is remembered of teachers, shared by all runs that name it; it is kept when a "
        "run ends. Default: in the run folder, taken away in the end.",
    )
    trained_stages: dict[str, Path] = Field(
        default_factory=dict,
        title="Stages trained before",
        description="Weights of stages before the student, by name (false_pixel_assistant, paraphraser ...), as "
        "another run left them: those stages are not trained again.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", title="Device", description="'auto' takes the GPU if there is one."
    )
    precision: Literal["auto", "32", "bf16", "16"] = Field(
        default="auto", title="Precision", description="'auto' is bf16 on a GPU that has it, else 32 bits."
    )
    seed: int = Field(default=0, ge=0, title="Seed", description="Of weights, order and augmentation.")
    deterministic: bool = Field(
        default=False,
        title="Deterministic",
        description="Use algorithms that give the same figures every time also on a GPU, where there are any; slower.",
    )
    output: Path = Field(
        default=Path("run"),
        title="Run folder",
        description="A new folder; the same one again resumes the run.",
    )
    threads: int | None = Field(
        default=None, ge=1, title="CPU threads", description="Default: as torch chooses."
    )
    previews: bool = Field(
        default=True,
        title="Previews",
        description="Save one validation tile an epoch as a picture: image, annotation and prediction.",
    )

    report: Literal["full", "student"] = Field(
        default="full",
        title="Report",
        description="'full': every network is scored in the end, also its contours and calibration. 'student': the "
        "overlap of the student alone, which takes far less time.",
    )

    @model_validator(mode="before")
    @classmethod
    def _augment_says_how(cls, values: Any) -> Any:
        """Take ``augment`` as a switch, or as the augmentation itself."""
        if isinstance(values, dict) and isinstance(values.get("augment"), dict | AugmentationConfig):
            values = {**values, "augment": True, "augmentation": values["augment"]}
        return values

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
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            temporary.write_text(text + "\n", encoding="utf-8")
            temporary.replace(path)
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
