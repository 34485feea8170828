"""What the jobs of this room need to know: the correction of a soft label, and the comparison of masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from napari_kdseg.distillation.settings import PlcKdSettings
from napari_kdseg.errors import ConfigurationError
from napari_kdseg.masks.settings import Region, SlideSettings
from napari_kdseg.settings import setting

_MASK = "Store *.ome.zarr, with ?name for one of several; outlines (GeoJSON, XML), PNG, TIFF, OME-Zarr or DICOM SEG."


class CorrectConfig(SlideSettings):
    """Correct a teacher's soft label on the annotated part of a slide."""

    annotation: str = setting(
        ...,
        "Annotation",
        "Path of a mask or of outlines (GeoJSON, XML) on the slide, or 'synthetic:...'.",
        min_length=1,
    )
    annotation_bounds: bool | None = setting(
        None,
        "From the scanned area",
        "Outlines count from the corner of the scanned area (MRXS). Default: those in GeoJSON, as QuPath's.",
    )
    teacher: Path = setting(..., "Teacher", "Checkpoint of the teacher.")
    false_pixel_assistant: Path | None = setting(
        None, "False-pixel-aware assistant", "Its checkpoint. Empty: the step is left out."
    )
    boundary_assistant: Path | None = setting(
        None, "Boundary-aware assistant", "Its checkpoint. Empty: the step is left out."
    )
    settings: PlcKdSettings = setting(
        default_factory=PlcKdSettings, title="Settings", description="How the team corrects."
    )
    tile: int = setting(
        256,
        "Tile (pixels)",
        "Side of a tile. A wrong pixel borrows from right ones of its tile and halo: larger tiles give more choice.",
        ge=32,
        le=4096,
    )
    halo: int = setting(64, "Halo (pixels)", "Context around a tile that the networks see.", ge=0, le=2048)

    @classmethod
    def from_run(
        cls, run: Path, *, slide: str, annotation: str, output: Path, **others: Any
    ) -> CorrectConfig:
        """Take the team of a finished run.

        Parameters
        ----------
        run
            Run folder of a PLC-KD distillation.
        slide, annotation, output, **others
            The other settings.

        Raises
        ------
        ConfigurationError
            If the folder holds no teacher.
        """
        checkpoints = Path(run) / "checkpoints"
        if not (checkpoints / "teacher.safetensors").is_file():
            raise ConfigurationError(
                f"{Path(run).name} holds no checkpoints/teacher.safetensors. "
                "Choose the folder of a run that kept its teacher."
            )

        def member(name: str) -> Path | None:
            path = checkpoints / f"{name}.safetensors"
            return path if path.is_file() else None

        team = {name: member(name) for name in ("false_pixel_assistant", "boundary_assistant")}
        return cls(
            slide=slide,
            annotation=annotation,
            output=output,
            teacher=checkpoints / "teacher.safetensors",
            **{"settings": _settings_of(Path(run)), **team, **others},
        )


class CompareConfig(BaseModel):
    """Compare two masks of a slide or more: where they differ, by how much, and in which regions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slide: str = setting(..., "Slide", "Path of the slide, or 'synthetic:...'.", min_length=1)
    output: Path = setting(..., "Folder", "Where the map, tables and summary are put; made if there is none.")
    teacher: str | None = setting(None, "Teacher", f"The teacher's mask. {_MASK}")
    student: str | None = setting(None, "Student", "The student's mask, likewise.")
    corrected: str | None = setting(None, "Corrected label", "A corrected label, likewise.")
    reference: str | None = setting(
        None, "Reference", "What the others are scored against, likewise. Without it: the first of them."
    )
    classes: tuple[str, ...] = setting(
        (),
        "Classes",
        "Which class is which where names do not say it: own=common, such as 3=1 or student:stroma=background; "
        "255 leaves one out.",
    )
    region: Region | None = setting(
        None,
        "Region",
        "Rectangle (y, x, height, width) in pixels of full resolution. Default: the whole slide.",
    )
    within: str | None = setting(
        None, "Within", "Outlines or a mask: only what lies in them is compared. Default: everything."
    )
    annotated: bool = setting(
        False,
        "Annotated part",
        "Compare only where the reference is annotated, the others with each other too.",
    )
    beyond: float = setting(
        0.0,
        "Beyond (µm)",
        "Leave disagreement out of map and regions where both masks have a border as near as this: the same border, "
        "drawn a little elsewhere.",
        ge=0,
        le=100,
        allow_inf_nan=False,
    )
    tolerance: float = setting(
        5.0,
        "Tolerance (µm)",
        "Contours as near as this count as the same in the surface Dice; pixels on a slide without a scale.",
        ge=0,
        le=100,
        allow_inf_nan=False,
    )
    scores: bool = setting(
        True,
        "All scores",
        "Also contours, distance from borders, sizes of objects and calibration, which takes several times as long.",
    )
    mpp: float | None = setting(
        None,
        "Micrometres per pixel",
        "Resolution of the comparison. Default: that of the finest mask.",
        gt=0,
        allow_inf_nan=False,
    )
    slide_mpp: float | None = setting(
        None,
        "Pixel size of the slide (µm)",
        "For a slide whose file does not say it; never guessed.",
        gt=0,
        allow_inf_nan=False,
    )
    bounds: bool | None = setting(
        None,
        "From the scanned area",
        "Files of outlines count from the corner of the scanned area (MRXS). Default: GeoJSON does, as QuPath's.",
    )
    overwrite: bool = setting(
        False, "Replace", "Replace a comparison in this folder that was made of other masks or settings."
    )

    @property
    def masks(self) -> dict[str, str]:
        """The masks that were named, by role."""
        named = {role: getattr(self, role) for role in ("teacher", "student", "corrected", "reference")}
        return {role: source for role, source in named.items() if source}


def _settings_of(run: Path) -> PlcKdSettings:
    """Read the constants of PLC-KD from the configuration of a run; those of other methods have none to give."""
    config = run / "config.json"
    if not config.is_file():
        return PlcKdSettings()
    try:
        given = json.loads(config.read_text(encoding="utf-8")).get("settings") or {}
    except (ValueError, AttributeError) as error:
        raise ConfigurationError(f"{config} is damaged ({error}). Choose another run.") from error
    return PlcKdSettings(
        **{name: value for name, value in given.items() if name in PlcKdSettings.model_fields}
    )
