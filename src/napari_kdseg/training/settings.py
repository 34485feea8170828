"""What a training is told of tiles, networks, optimiser and augmentation, alone or as one of a study.

Pydantic models; loads neither torch nor Qt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_kdseg.networks.spec import is_encoder
from napari_kdseg.settings import setting

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class DataConfig(_Settings):
    """Where the annotated tiles lie, what their masks mean, and how they are divided."""

    folder: Path = setting(
        title="Folder",
        description="Folder that holds the images, the masks and, if there is one, manifest.csv.",
    )
    images: str = setting(
        default="images", title="Images", description="Subfolder of the images (PNG, TIFF or JPEG)."
    )
    masks: str = setting(
        default="masks",
        title="Masks",
        description="Subfolder of the masks; a mask has the stem of its image.",
    )
    manifest: Path | None = setting(
        default=None,
        title="Manifest",
        description="CSV with a column 'tile' and, as far as known, 'split' (train, val, test), 'patient', "
        "'class_index', 'class'. Default: manifest.csv in the folder, if it is there.",
    )
    classes: tuple[str, ...] | None = setting(
        default=None,
        title="Classes",
        description="Names of the classes, background first. Default: from classes.txt or the data.",
    )
    labels: Literal["mask", "class_index"] = setting(
        default="mask",
        title="Labels",
        description="'mask': the values of the masks are the classes (0 background, 255 ignored; masks of only "
        "0 and 255 mean class 1). 'class_index': the foreground of a tile takes the class_index that the "
        "manifest gives the tile.",
    )
    value_255: Literal["auto", "class_1", "ignored"] = setting(
        default="auto",
        title="Value 255 in masks",
        description="What 255 means: 'class_1' beside 0, or 'ignored' (nobody annotated these pixels). Default: "
        "class 1 where all masks hold only 0 and 255, else ignored; refused where some masks hold 0 and 1, others "
        "0 and 255, and none both.",
    )
    input_size: int = setting(
        default=96,
        ge=32,
        le=4096,
        title="Input size (pixels)",
        description="Side of the square that networks are trained on. The shorter side of a tile is resized to "
        "it, the longer one cropped. 96 suits a computer without a GPU, 224 to 512 one that has it.",
    )
    validation_fraction: Fraction = setting(
        default=0.15,
        gt=0.0,
        title="Validation fraction",
        description="Share of the tiles kept for validation, where no split is given.",
    )
    test_fraction: Fraction = setting(
        default=0.0,
        title="Test fraction",
        description="Share of the tiles kept for the final test, where no split is given.",
    )
    mpp: float | None = setting(
        default=None,
        gt=0.0,
        title="Micrometres per pixel",
        description="Scale of the tiles as they are stored. Default: column 'mpp' of the manifest.",
    )
    limit: int | None = setting(
        default=None,
        ge=2,
        title="Tiles per split",
        description="At most so many tiles of each split: for a quick trial.",
    )
    seed: int = setting(
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

    architecture: str | None = setting(
        default=None,
        title="Architecture",
        description="Such as 'unet/resnet34' or 'enet'; 'kdseg networks' lists all.",
    )
    checkpoint: Path | None = setting(
        default=None,
        title="Checkpoint",
        description="Trained weights. A teacher with a checkpoint is not trained again.",
    )
    options: dict[str, Any] = setting(
        default_factory=dict,
        title="Options",
        description="Passed on to the architecture, such as its depth or width.",
    )
    encoder_weights: Path | None = setting(
        default=None,
        title="Encoder weights",
        description="Pretrained weights of the encoder alone, a file of torchvision, timm or "
        "segmentation-models-pytorch; the rest starts at random.",
    )
    new_head: bool = setting(
        default=False,
        title="New head for other classes",
        description="Where the checkpoint has another number of classes than the data, put a new last layer on it. "
        "A teacher is then trained.",
    )
    mean: tuple[float, ...] | None = setting(
        default=None,
        title="Mean",
        description="Of each channel, of values from 0 to 1, where the checkpoint does not say. Default: ImageNet's.",
    )
    std: tuple[float, ...] | None = setting(
        default=None,
        title="Standard deviation",
        description="Of each channel, of values from 0 to 1, where the checkpoint does not say. Default: ImageNet's.",
    )
    multiple: int | None = setting(
        default=None,
        ge=1,
        title="Sides are multiples of",
        description="Of a network of your own: what height and width of an image must be a multiple of. Default: 32.",
    )
    input_size: int | None = setting(
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
        return is_encoder(self.architecture or "")


class OptimiserConfig(_Settings):
    """How weights are stepped; the default is AdamW with a polynomial decay, as in most segmentation papers."""

    name: Literal["adamw", "sgd", "adam"] = setting(
        default="adamw",
        title="Optimiser",
        description="AdamW, stochastic gradient descent with momentum, or Adam.",
    )
    learning_rate: float = setting(
        default=2e-3,
        gt=0.0,
        title="Learning rate",
        description="At the first step of a stage, or after the warm-up. 0.01 suits SGD.",
    )
    weight_decay: float = setting(
        default=1e-4,
        ge=0.0,
        title="Weight decay",
        description="Of the optimiser; apart from the gradient in AdamW.",
    )
    momentum: float = setting(default=0.9, ge=0.0, lt=1.0, title="Momentum", description="Of SGD.")
    nesterov: bool = setting(default=False, title="Nesterov", description="Nesterov's momentum, in SGD.")
    schedule: Literal["poly", "cosine", "constant"] = setting(
        default="poly",
        title="Schedule",
        description="How the learning rate falls over the steps of a stage.",
    )
    poly_power: float = setting(
        default=0.9,
        ge=0.0,
        title="Decay power",
        description="In 'poly' the rate is multiplied by (1 - step / steps) to this power.",
    )
    warm_up: float = setting(
        default=0.0,
        ge=0.0,
        title="Warm-up",
        description="Steps over which the rate rises to its full value; below 1: a share of the steps of a stage.",
    )
    clip: float = setting(
        default=1.0, gt=0.0, title="Gradient clip", description="Largest norm of the gradient of one step."
    )
    ema: float = setting(
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

    flips: bool = setting(default=True, title="Flips", description="Mirror half of the tiles.")
    turns: bool = setting(
        default=True, title="Quarter turns", description="Turn tiles by 0, 90, 180 or 270 degrees."
    )
    stain_probability: Probability = setting(
        default=1.0, title="Stain: how often", description="Share of the tiles that are stained differently."
    )
    stain: float = setting(
        default=0.05,
        ge=0.0,
        lt=1.0,
        title="Stain: strength",
        description="Haematoxylin, eosin and DAB are each multiplied by 1 plus or minus at most this. 0.05 is called "
        "HED-light by Tellez et al. (2018), 0.2 HED-strong.",
    )
    stain_shift: float = setting(
        default=0.02,
        ge=0.0,
        le=1.0,
        title="Stain: shift",
        description="Each stain is shifted by at most this, in optical density (natural logarithm).",
    )
    light_probability: Probability = setting(
        default=0.3,
        title="Light: how often",
        description="Share of the tiles whose brightness and contrast are changed.",
    )
    brightness: float = setting(
        default=0.05,
        ge=0.0,
        le=1.0,
        title="Brightness",
        description="At most so much of the full range is added or taken away.",
    )
    contrast: float = setting(
        default=0.1,
        ge=0.0,
        lt=1.0,
        title="Contrast",
        description="Values are stretched around their mean by 1 plus or minus at most this.",
    )
    blur_probability: Probability = setting(
        default=0.1, title="Blur: how often", description="Share of the tiles that are out of focus."
    )
    blur: float = setting(
        default=1.0,
        ge=0.0,
        le=20.0,
        title="Blur: strength",
        description="Largest standard deviation of the Gaussian blur, in pixels of the input.",
    )
    scale_probability: Probability = setting(
        default=0.3, title="Scale: how often", description="Share of the tiles that are enlarged or reduced."
    )
    scale: float = setting(
        default=0.2,
        ge=0.0,
        le=3.0,
        title="Scale: strength",
        description="Tiles are enlarged or reduced by a factor of at most 1 plus this.",
    )


class TrainingConfig(_Settings):
    """How networks are trained, whatever they learn from."""

    data: DataConfig = setting(title="Data")
    batch_size: int = setting(
        default=16, ge=2, title="Batch size", description="Tiles per step; halve it when memory runs out."
    )
    optimiser: OptimiserConfig = setting(default_factory=OptimiserConfig, title="Optimiser")
    augment: bool = setting(
        default=True,
        title="Augment",
        description="Flips, quarter turns, and light changes of stain, brightness, focus and scale.",
    )
    augmentation: AugmentationConfig = setting(
        default_factory=AugmentationConfig,
        title="Augmentation",
        description="Which changes, how often and how much. May also be given as 'augment'.",
    )
    sampling: Literal["all", "balanced", "lesion"] = setting(
        default="all",
        title="Sampling",
        description="'all': every tile once an epoch. 'balanced': tiles of rare classes more often, so that all "
        "classes come alike. 'lesion': at least half of the tiles drawn show foreground.",
    )
    remember_teacher: bool = setting(
        default=False,
        title="Remember the teacher",
        description="Keep on disk what teacher and assistants put out, so that they see each tile once, not in every "
        "epoch. Works without augmentation, or with flips and quarter turns alone; takes disk space meanwhile.",
    )
    device: Literal["auto", "cpu", "cuda"] = setting(
        default="auto", title="Device", description="'auto' takes the GPU if there is one."
    )
    precision: Literal["auto", "32", "bf16", "16"] = setting(
        default="auto", title="Precision", description="'auto' is bf16 on a GPU that has it, else 32 bits."
    )
    threads: int | None = setting(
        default=None, ge=1, title="CPU threads", description="Of a run. Default: the processors, divided."
    )

    @model_validator(mode="before")
    @classmethod
    def _augment_says_how(cls, values: Any) -> Any:
        """Take ``augment`` as a switch, or as the augmentation itself."""
        if isinstance(values, dict) and isinstance(values.get("augment"), dict | AugmentationConfig):
            values = {**values, "augment": True, "augmentation": values["augment"]}
        return values
