"""What a prediction is told: settings that the window, the command line and the stored mask share. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Device = Literal["auto", "cpu", "cuda"]
Colours = Literal["stored", "srgb"]
Precision = Literal["auto", "float32", "bfloat16"]
Side = Annotated[int, Field(gt=0)]
Region = tuple[int, int, Side, Side]


def _check_output(output: Path) -> Path:
    if not output.name.lower().endswith(".ome.zarr"):
        raise ValueError(f"the output is a folder named *.ome.zarr, not {output.name!r}")
    return output


Output = Annotated[Path, AfterValidator(_check_output)]


def setting(default: Any, title: str, description: str, **bounds: Any) -> Any:
    """Return a field with a title and one plain sentence: the window and the command line build their forms of them."""
    return Field(default, title=title, description=description, **bounds)


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


class PredictConfig(SlideSettings):
    """Predict one network on one slide.

    Notes
    -----
    Of ``halo``: 64 px leaves seams of the order of 1e-5 in probability for plain convolutional networks. A halo of at
    least the receptive-field radius leaves none but costs several times the computation for deep encoders (281 px for
    U-Net/ResNet-18). Networks that see the whole image (attention, image pooling) always leave faint seams.
    """

    checkpoint: Path = setting(..., "Model", "Checkpoint of the network.")
    name: str = setting(
        "student",
        "Name",
        "Name of the mask, such as teacher or student.",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",
        max_length=64,
    )
    tile: int = setting(
        512, "Tile (pixels)", "Side of a tile of the result, and of a chunk on disk.", ge=32, le=8192
    )
    halo: int | None = setting(
        64,
        "Halo (pixels)",
        "Context around a tile that the network sees. Empty: as far as the network looks, measured, at most 512.",
        ge=0,
        le=2048,
    )
    batch_size: int = setting(1, "Batch size", "Tiles at once; 1 is fastest on a CPU.", ge=1, le=1024)
    precision: Precision = setting(
        "auto", "Precision", "'auto' is bfloat16 on a GPU that has it, else float32."
    )
    skip_background: bool = setting(True, "Skip background", "Call tiles without tissue background, unseen.")
    probabilities: bool = setting(
        False, "Keep probabilities", "Keep the probability of the predicted class too."
    )
