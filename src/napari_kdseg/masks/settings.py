"""What every job that lays something over a slide is told; the window and the command line make their forms of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from napari_kdseg.settings import setting

Device = Literal["auto", "cpu", "cuda"]
Colours = Literal["stored", "srgb"]
Side = Annotated[int, Field(gt=0)]
Region = tuple[int, int, Side, Side]


def _check_output(output: Path) -> Path:
    if not output.name.lower().endswith(".ome.zarr"):
        raise ValueError(f"the output is a folder named *.ome.zarr, not {output.name!r}")
    return output


Output = Annotated[Path, AfterValidator(_check_output)]


class SlideSettings(BaseModel):
    """What every job that lays something over a slide is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slide: str = setting(..., "Slide", "Path of the slide, or 'synthetic:...'.", min_length=1)
    output: Output = setting(
        ..., "Masks", "Folder *.ome.zarr for the masks of this slide; made if there is none."
    )
    region: Region | None = setting(
        None,
        "Region",
        "Rectangle (y, x, height, width) in pixels of full resolution, grown to whole tiles. Default: the whole slide.",
    )
    mpp: float | None = setting(
        None,
        "Micrometres per pixel",
        "Resolution of the result. Default: that of the model.",
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
    colours: Colours = setting(
        "stored",
        "Colours",
        "'stored' gives networks the pixels as they are in the file, 'srgb' after the slide's colour profile. "
        "Train and predict alike.",
    )
    device: Device = setting("auto", "Device", "'auto' takes the GPU if there is one.")
    overwrite: bool = setting(
        False, "Replace", "Replace a mask of this name that was made with other settings."
    )
