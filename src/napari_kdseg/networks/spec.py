"""What a network is, in words and numbers: everything needed to build it again and to feed it. No torch here."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

IGNORE_INDEX = 255
OWN_CODE = "python:"
"""Begins the name of a network that is somebody's own class: ``python:mypackage.models:MyNet``."""
ENCODER = "foundation/"
"""Begins the name of an encoder that puts out features and no classes: ``foundation/uni``."""
REVISION = 2
"""Of the networks of papers. 1: ``enet`` and ``fanet`` before they were corrected (:func:`.catalogue.arguments`)."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def is_own_code(architecture: str) -> bool:
    """Whether a network is somebody's own class, by how its name begins."""
    return architecture.strip().startswith(OWN_CODE)


def is_encoder(architecture: str) -> bool:
    """Whether a network is an encoder without classes, by how its name begins."""
    return architecture.strip().lower().startswith(ENCODER)


class NetworkSpec(BaseModel):
    """Description of one segmentation network; it travels in the header of its checkpoint.

    Attributes
    ----------
    architecture
        Name as :func:`napari_kdseg.networks.create` takes it: ``"enet"``, ``"unet/resnet34"``,
        ``"python:mypackage.models:MyNet"``, ``"foundation/uni"``.
    in_channels
        Channels of the image.
    classes
        Names of the classes in the order of the network's output; index 0 is background. At most 255, because
        255 is the ignore label. Empty for an encoder, which has none.
    multiple
        Number that height and width of an image must be a multiple of; None: what the architecture is known to want.
    colours
        One ``#rrggbb`` a class, or None.
    mean, std
        Statistics of each channel after pixels were scaled from 0..255 to 0..1; the input is
        ``(pixel / 255 - mean) / std``. Where not given: those of ImageNet for three channels (what encoders of smp
        and timm are trained with), 0.5 and 0.25 for any other number.
    mpp
        Micrometres a pixel the network was trained at; None where this is not known.
    input_size
        Side of the square training patch, in pixels.
    method
        Name of the distillation method, None for a network trained on labels alone.
    metrics
        Scores on its validation set.
    options
        Further settings of the architecture, passed to ``create``; plain JSON values.
    versions
        Versions of the software that wrote the checkpoint.
    revision
        Which of its revisions a network of a paper is: weights mean something only in the one that they were trained
        in. The present one unless a file says otherwise; :meth:`from_header` reads files that say nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    architecture: str = Field(min_length=1)
    in_channels: int = Field(default=3, ge=1)
    classes: tuple[str, ...]
    multiple: int | None = Field(default=None, ge=1)
    colours: tuple[str, ...] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    mpp: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    input_size: int | None = Field(default=None, ge=1)
    method: str | None = None
    metrics: dict[str, float] = {}
    options: dict[str, Any] = {}
    versions: dict[str, str] = {}
    revision: int = Field(default=REVISION, ge=1, le=REVISION)

    @classmethod
    def from_header(cls, text: str) -> NetworkSpec:
        """Read what a file says of its network, as JSON; one that names no revision was written in the first.

        Raises
        ------
        pydantic.ValidationError
            If it cannot be understood.
        """
        spec = cls.model_validate_json(text)
        return spec if "revision" in spec.model_fields_set else spec.model_copy(update={"revision": 1})

    @model_validator(mode="before")
    @classmethod
    def _fill_statistics(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        channels = data.get("in_channels", 3)
        if not isinstance(channels, int) or channels < 1:
            return data
        mean, std = (
            (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,) * channels, (0.25,) * channels)
        )
        given = {
            key: value
            for key, value in data.items()
            if not (key in ("mean", "std") and value in (None, (), []))
        }
        return {"mean": mean, "std": std} | given

    @field_validator("architecture")
    @classmethod
    def _tidy_architecture(cls, value: str) -> str:
        value = value.strip()
        return value if is_own_code(value) else value.lower()

    @property
    def segments(self) -> bool:
        """Whether it puts out logits of classes; an encoder puts out features alone."""
        return not is_encoder(self.architecture)

    @field_validator("classes")
    @classmethod
    def _check_classes(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not value and is_encoder(info.data.get("architecture", "")):
            return value
        if not 2 <= len(value) <= IGNORE_INDEX:
            raise ValueError(
                f"a network needs between 2 and {IGNORE_INDEX} classes, background first, but {len(value)} were named"
            )
        if not all(name.strip() for name in value):
            raise ValueError("a class has an empty name; give every class a name")
        if len(set(value)) < len(value):
            twice = next(name for name in value if value.count(name) > 1)
            raise ValueError(f"the class name {twice!r} is used twice; give every class its own name")
        return value

    @field_validator("colours")
    @classmethod
    def _check_colours(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for colour in value or ():
            if not re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
                raise ValueError(f"{colour!r} is not a colour; write it as #rrggbb, for example #c2185b")
        return value

    @field_validator("options")
    @classmethod
    def _as_json(cls, value: dict[str, Any]) -> dict[str, Any]:
        # Tuples become lists here and now, so that a spec read back from a file equals the one written.
        try:
            return json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError("options may hold only text, numbers, lists and true/false") from error

    @model_validator(mode="after")
    def _check_lengths(self) -> NetworkSpec:
        if self.colours is not None and len(self.colours) != len(self.classes):
            raise ValueError(
                f"there are {len(self.classes)} classes but {len(self.colours)} colours; give one a class"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.in_channels:
                raise ValueError(
                    f"{name} needs {self.in_channels} numbers, one a channel, but has {len(values)}"
                )
            if not all(math.isfinite(number) for number in values):
                raise ValueError(f"{name} must be ordinary numbers, but is {values}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be above zero in every channel, but is {self.std}")
        return self

    def describe(self) -> str:
        """Say in one line what the network is.

        Returns
        -------
        str
            For example ``"unet/resnet18, 3 channels, 2 classes (background, tumour), 0.5 µm per pixel, plc-kd"``.
        """
        shown = ", ".join(self.classes[:4]) + (", ..." if len(self.classes) > 4 else "")
        parts = [
            self.architecture,
            f"{self.in_channels} channel{'s' if self.in_channels > 1 else ''}",
            f"{len(self.classes)} classes ({shown})" if self.classes else "features only",
            f"{self.mpp:g} µm per pixel" if self.mpp else "",
            f"{self.input_size} px patches" if self.input_size else "",
            self.method or "",
        ]
        return ", ".join(part for part in parts if part)
