"""Constants of the methods as pydantic models: the docks and the command line build their forms from these.

Nothing here imports torch. PLC-KD's own values stand in a supplement that is not available, so every default
below is ours; the symbol a paper gives a constant is kept beside it (``json_schema_extra["symbol"]``).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from napari_kdseg.settings import setting

FOCUSING = {"ce+dice": 0.0, "focal+dice": 2.0}
"""Exponent of the focal loss; EMKD's code has 2, cross entropy is 0."""
OURS = "The default is ours: the paper's supplement is not available."


class AloneSettings(BaseModel):
    """Constants of supervised training: the segmentation loss every network is trained with."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    segmentation_loss: Literal["ce+dice", "focal+dice"] = setting(
        "ce+dice",
        "Segmentation loss",
        "Cross entropy and Dice, or focal loss (exponent 2) and Dice, which counts pixels less the surer they are.",
    )
    cross_entropy_weight: float = setting(
        1.0,
        "Cross entropy weight",
        "Weight of the cross entropy, or of the focal loss in its place, in the segmentation loss.",
        ge=0,
        le=1000,
    )
    dice_weight: float = setting(
        1.0, "Dice weight", "Weight of the soft Dice loss in the segmentation loss.", ge=0, le=1000
    )
    class_weights: tuple[Annotated[float, Field(ge=0, le=1000)], ...] = setting(
        (),
        "Class weights",
        "How much each class counts in the cross entropy or focal loss, background first, such as 1, 2, 2; empty: all "
        "alike.",
    )


class FeatureSettings(AloneSettings):
    """What methods have in common that compare layers inside the networks."""

    student_layers: tuple[str, ...] = setting(
        (),
        "Layers of the student",
        "Module paths such as decoder.blocks.3, or names such as @deep; empty: chosen for the network.",
    )
    teacher_layers: tuple[str, ...] = setting(
        (),
        "Layers of the teacher",
        "Module paths such as decoder.blocks.3, or names such as @deep; empty: chosen for the network.",
    )


class KdSettings(AloneSettings):
    """Constants of Hinton's distillation at every pixel."""

    temperature: float = setting(
        4.0,
        "Temperature",
        "Softens both maps before they are compared; 1 leaves them as they are.",
        symbol="τ",
        gt=0,
        le=100,
    )
    kd_weight: float = setting(
        1.0,
        "Distillation weight",
        "Weight of the distillation loss beside the segmentation loss.",
        symbol="λ",
        ge=0,
        le=10000,
    )


class PlcKdSettings(KdSettings):
    """Constants of PLC-KD (Wang et al., MICCAI 2024). All defaults are ours: its supplement is not available."""

    temperature: float = setting(
        1.0,
        "Temperature",
        f"Softens both maps before they are compared; 1 leaves them as they are. {OURS}",
        symbol="τ",
        gt=0,
        le=100,
    )
    kd_weight: float = setting(
        1.0,
        "Distillation weight",
        f"Weight of the corrected soft labels beside the segmentation loss. {OURS}",
        symbol="λ",
        ge=0,
        le=10000,
    )

    use_false_pixel_assistant: bool = setting(
        True,
        "Use the false-pixel-aware assistant",
        "Let an assistant trained on images made of the teacher's false pixels mend soft labels.",
        symbol="TA_f",
    )
    use_boundary_assistant: bool = setting(
        True,
        "Use the boundary-aware assistant",
        "Let an assistant trained on boundary-transformed images mend soft labels.",
        symbol="TA_b",
    )
    use_similarity: bool = setting(
        True,
        "Use the similarity correction",
        "Give each pixel that is still wrong the soft label of the most similar right pixel.",
        symbol="SC",
    )

    initialise: Literal["teacher", "scratch"] = setting(
        "teacher",
        "Assistants start from",
        f"Start the assistants from the teacher's weights, or from random weights. {OURS}",
    )
    assistant_learning_rate_factor: float = setting(
        0.1,
        "Assistants' learning rate factor",
        f"Learning rate of the assistants relative to the student's. {OURS}",
        gt=0,
        le=100,
    )
    assistant_epochs_factor: float = setting(
        0.5,
        "Assistants' epochs factor",
        f"Epochs of each assistant relative to the student's. {OURS}",
        gt=0,
        le=100,
    )

    queue_length: int = setting(
        16384,
        "Queue length",
        f"How many false pixels are remembered for each class. {OURS}",
        symbol="M, N",
        ge=1,
        le=2**24,
    )
    pixels_per_image: int = setting(
        256,
        "False pixels per image",
        f"How many false pixels of each class are taken from one image. {OURS}",
        symbol="k",
        ge=1,
        le=2**20,
    )
    warm_up_epochs: int = setting(
        5,
        "Warm-up epochs",
        f"Epochs after which training starts even if the queues of false pixels are not full. {OURS}",
        ge=0,
        le=10000,
    )
    real_fraction: float = setting(
        0.5,
        "Real images for the false-pixel-aware assistant",
        "Share of real images in its batches; the paper trains on synthetic images only (0), which spoils batch "
        f"normalisation for real ones. {OURS}",
        ge=0,
        le=1,
    )

    boundary_width: int = setting(
        5,
        "Boundary width",
        f"Width in pixels of the boundary band inside a lesion. {OURS}",
        symbol="δ",
        ge=1,
        le=1000,
    )
    boundary_start: Literal["edge", "contour"] = setting(
        "edge",
        "Boundary begins at",
        "Count the width from the edge of the lesion (a band of δ pixels), or from its outermost pixels, the contour, "
        "which are then part of it (δ + 1); the paper does not say which.",
    )
    swap_fraction: float = setting(
        0.5,
        "Swapped share",
        f"Share of the smaller of boundary band and inner region whose pixels are swapped with the other. {OURS}",
        symbol="ρ",
        ge=0,
        le=1,
    )
    boundary_real_fraction: float = setting(
        0.0,
        "Real images for the boundary-aware assistant",
        "Share of images in its batches left as they are; the paper transforms all (0).",
        ge=0,
        le=1,
    )

    rule: Literal["replace_if_right", "replace_if_wrong", "mean"] = setting(
        "replace_if_right",
        "How an assistant corrects",
        "Replace a wrong soft label where the assistant is right, or wherever it is wrong, or average the members of "
        "the team; the paper does not say which.",
    )
    boundary_only: int | None = setting(
        None,
        "Limit to the boundary",
        "Let the boundary-aware assistant correct only within this many pixels of a true contour; empty for no limit.",
        ge=1,
        le=10000,
    )
    similarity: Literal["feature", "rgb", "prob"] = setting(
        "feature",
        "Similarity of",
        "What two pixels are compared by: the teacher's last feature, their colour, or their soft label. The paper "
        "does not say which.",
    )
    bank_chunk: int = setting(
        4096,
        "Pixels compared at once",
        "At most how many right pixels are compared at a time; bounds the memory only.",
        ge=1,
        le=2**24,
    )
    class_mean_momentum: float = setting(
        0.9,
        "Class mean momentum",
        "How slowly the running mean soft label of a class moves, used where a batch has no right pixel of the class. "
        f"{OURS}",
        ge=0,
        lt=1,
    )
