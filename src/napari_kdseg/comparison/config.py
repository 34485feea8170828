"""What the correction of a teacher's soft label on an annotated slide needs to know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from napari_kdseg.distillation.settings import PlcKdSettings
from napari_kdseg.errors import ConfigurationError
from napari_kdseg.masks.settings import SlideSettings
from napari_kdseg.settings import setting


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
