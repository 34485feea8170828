"""What a prediction is told: settings that the window, the command line and the stored mask share. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from napari_kdseg.masks.settings import Region, SlideSettings
from napari_kdseg.settings import setting

Precision = Literal["auto", "float32", "bfloat16", "float16"]
MaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)]


class PredictConfig(SlideSettings):
    """Predict one network or several on one slide, in one pass.

    Notes
    -----
    Of ``halo``: a halo of at least the receptive-field radius gives what the network would give on the whole slide at
    once, and costs several times the computation for deep encoders (281 px for U-Net/ResNet-18). ``auto`` takes the
    smallest halo whose classes are the same on sample tiles of this slide, and records the largest difference in
    probability that was seen there. Networks that see the whole image (attention, image pooling) have no such halo:
    neighbouring tiles are blended by a Gaussian instead, and the seam that remains is measured.

    ``auto`` goes on with what an unfinished mask was begun with, else with what was measured for this model here.
    """

    networks: dict[MaskName, Path] = setting(
        ...,
        "Models",
        "Name of each mask, such as teacher or student, and the checkpoint of its network.",
        min_length=1,
    )
    tile: Annotated[int, Field(ge=32, le=8192)] | Literal["auto"] = setting(
        "auto", "Tile (pixels)", "Side of a tile of the result, and of a chunk on disk."
    )
    halo: Annotated[int, Field(ge=0, le=2048)] | Literal["auto", "exact"] = setting(
        "auto",
        "Halo (pixels)",
        "Context around a tile that the network sees. 'auto': the least that gives the classes of 'exact' on samples; "
        "'exact': as far as the network looks.",
    )
    batch_size: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = setting(
        "auto", "Batch size", "Tiles at once; 1 is fastest on most CPUs."
    )
    precision: Precision = setting(
        "auto",
        "Precision",
        "'auto' is bfloat16 or float16 where the hardware has it and the classes on sample tiles stay the same.",
    )
    threads: int | None = setting(
        None, "Threads", "That compute, on a CPU. Empty: as many as there are processors.", ge=1, le=1024
    )
    compile: bool = setting(
        False, "Compile", "Compile the networks first (minutes): for many slides on a GPU."
    )
    skip_background: bool = setting(True, "Skip background", "Call tiles without tissue background, unseen.")
    probabilities: bool = setting(
        False, "Keep probabilities", "Keep the probability of the predicted class too."
    )
    first: tuple[Region, ...] = setting(
        (), "First", "Rectangles (y, x, height, width) of full resolution that come after what is on screen."
    )
