"""What a prediction is told: settings that the window, the command line and the stored mask share. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from napari_kdseg.masks.settings import SlideSettings, setting

Precision = Literal["auto", "float32", "bfloat16"]


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
